"""Prefect flows that run the stages of dvc.yaml. They depend on no particular model.

======================  ===============================================================================================
``graph.py``            read the stages of dvc.yaml, select the requested ones, find those that have to run
``kinds.py``            retries, timeouts and GPU use of each kind of stage, in one table
``guard.py``            wrapper program around every child process; it stops the child when the parent is gone
``process.py``          a child process: reads its output line by line, enforces its timeout, stops it
``slots.py``            slots of the concurrency limit, passed from one heavy stage to the next
``stage.py``            a stage as a Prefect task: ``dvc repro --single-item`` and its result as a state
``checkout.py``         lock of the project folder, record of a killed run, recovery of a damaged dvc.lock
``killed.py``           clean up after a killed run and resume it
``orphan.py``           stop a flow run when the worker that started it is gone
``remote.py``           pull from and push to a DVC remote
``artifacts.py``        Prefect artifacts: result table, links to the report and to MLflow
``pipeline.py``         the pipeline flow; ``python -m flows.pipeline`` runs it from a shell
``command.py``          run a command of the project from a flow
``footage.py``          score new videos in the inbox with the champion of their data set
``promote.py``          choose the champion of a data set
``serve.py``            start server, work pool, limit, worker and MLflow on one machine: ``make serve``
======================  ===============================================================================================
"""
