"""When and where stages run: Prefect flows over dvc.yaml's graph. No module here knows a model.

======================  ===============================================================================================
``graph.py``            the stages of dvc.yaml, which of them a person asked for, which of them have to run
``kinds.py``            retries, time limits and who takes the GPU: one table
``guard.py``            the program around every process that is started here, so that it ends when its starter does
``process.py``          such a process: its output line by line, its time limit, how it is stopped
``slots.py``            slots of the concurrency limit, handed on from one heavy stage to the next
``stage.py``            a stage as a Prefect task: ``dvc repro --single-item`` and what it did
``checkout.py``         one pipeline run at a time in a checkout; what is known of one that was killed; dvc.lock kept whole
``killed.py``           a run that was killed: what it held is free again, and it goes on
``orphan.py``           a flow run ends with the worker that started it
``remote.py``           what is pulled from a DVC remote and pushed to it
``artifacts.py``        results and links, for the person who looks at the run
``pipeline.py``         the flow; ``python -m flows.pipeline`` is the same for a person at a shell
``command.py``          a command of the project, run by a flow
``footage.py``          new videos in an inbox, scored by the champion of their data set
``promote.py``          which system is the champion
``serve.py``            server, work pool, limit, worker and MLflow on one machine: ``make serve``
======================  ===============================================================================================
"""
