"""Prefect flows that run the stages of dvc.yaml. They depend on no particular model.

======================  ===============================================================================================
``pipeline.py``         the pipeline flow; ``python -m flows.pipeline`` runs it from a shell
``graph.py``            read the stages of dvc.yaml, select the requested ones, find those that have to run
``stage.py``            a stage as a Prefect task: retries, timeouts and GPU use of its kind, ``dvc repro``, its state
``remote.py``           pull from and push to a DVC remote
``artifacts.py``        Prefect artifacts: result table, links to the report and to MLflow
``recovery.py``         one run at a time in a checkout, resume after a kill, recovery of a damaged dvc.lock
``process.py``          a child process: reads its output line by line, enforces its timeout, ends with the worker
``guard.py``            wrapper program around every child process; it stops the child when the parent is gone
``detect.py``           score new videos in the inbox with the champion of their data set
``promote.py``          choose the champion of a data set
``serve.py``            start server, work pool, limit, worker and MLflow on one machine: ``make serve``
======================  ===============================================================================================
"""
