"""Scoring of new footage with a trained system: a video in, its events out.

=============== =======================================================================================================
``detector``    a trained system, or a fusion of several, with its calibration, ready to score
``reading``     pictures of a video in any format
``frames``      a video at the frame rate, size and colour that the system was trained on
``judging``     scores windows of frames as they arrive; equal to :mod:`vadcore.evaluation.inference`
``scan``        a whole video: scores, p-values, events, and places in the picture
``results``     the folder of a video's results: complete or absent
``timeline``    the score over time as a picture
``film``        the annotated video
``inbox``       a folder of incoming videos: each is scored once, also after a kill
``settled``     whether a file is completely written
``alerts``      queued alerts; ``calls``: a command or URL that is called once an event
=============== =======================================================================================================

Memory does not grow with the length of a video, except for the scores, some numbers a frame.
"""
