"""From a pipeline to what runs it. Read first: ``engine`` what an engine is, and ``compile``, which chooses one.

The chain: ``chain`` stages one behind the other · ``division`` which of them the planner answers, which run in lanes,
which on batches · ``planning`` the plan · ``learnt`` when an index that was learnt is used · ``mix``, ``batched``
mixtures as sources.

Batches that are decided in integers: ``indexed`` the engine · ``batches`` a consumer's steps.

All others: ``interleaved`` the engine · ``lanes`` what a lane is, and where it stands · ``turns`` batches of a
consumer's lanes · ``streams`` a plan's samples in lanes.

Around a pass: ``life`` which one comes next · ``state`` what a saved one looks like · ``plain``, ``clock`` a pipeline
that is iterated without a loader · ``bounds`` what a reader holds at most · ``explain``, ``explain_plan``,
``explain_reading`` all of it in words.
"""
