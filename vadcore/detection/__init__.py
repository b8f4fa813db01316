"""Anomaly detection in new videos with a trained system.

=============== =======================================================================================================
``detector``    load a trained system, or a fusion of several, with its calibration
``stream``      a video as a stream: frame rate, size and colour of the training footage, scores, p-values, events
``results``     results folder of a video, written atomically
``making``      atomic creation of a results folder; ``held``: folder locks; ``naming``: file names
``timeline``    plot of the score over time
``film``        annotated video
``inbox``       folder of incoming videos; each is scored once, also after a kill
``blame``       video errors and machine errors of an inbox run
``settled``     check whether a file is completely written
``alerts``      alert queue with retries; ``calls``: call of a command or URL, once per event
=============== =======================================================================================================

Memory use does not grow with the length of a video, except for the scores: a few numbers per frame.
"""
