"""Scoring of new footage with a trained system: a video in, its events out.

============== ========================================================================================================
``recipe``     how the footage was made that a system was trained on; a folder that holds all that scoring needs
``detector``   a trained system, or a fusion of several, with its calibration, ready to score
``reading``    the pictures of a video that came from anywhere
``frames``     a video as the system wants it: its rate, size and colour
``judging``    scores windows of frames as they arrive; equal to those of :mod:`vadcore.evaluation.inference`
``scan``       a whole video: scores, p-values, events, and where in the picture
``maps``       error maps on disk, because those of an hour do not fit into memory
``results``    the folder of a video's results: complete or not there
``timeline``   the score over time as a picture
``film``       the video with its error maps over it
``inbox``      a folder of videos that come in: each is scored once, whatever happens to the process
``settled``    whether a file has come in whole
``alerts``     alerts that wait for their call; ``calls``: a command or URL that is called once an event
============== ========================================================================================================

Nothing here grows with the length of a video but the scores, which are some numbers a frame.
"""
