"""Anomaly detection in new videos with a trained system.

============ ==========================================================================================================
``detector`` load a trained system, or a fusion of several, with its calibration
``stream``   score a video as a stream: scores, p-values, events and their place in the picture
``output``   results folder of a video, created atomically
``film``     annotated video, plot of the score over time
``incoming`` files of an inbox: which are videos, which are complete, why others are not scored
``inbox``    folder of incoming videos; each is scored once, also after a kill
``alerts``   call of a command or URL, once per event, with retries
``naming``   file names
============ ==========================================================================================================

Memory use does not grow with the length of a video, except for the scores: a few numbers per frame.
"""
