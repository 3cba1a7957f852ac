"""Evidence on real LLM labels: this package's student against common alternatives.

    python -m benchmarks.evidence

``data`` creates the cells, ``features`` embeds their texts, ``baselines`` and ``ours`` contain the
methods, ``run`` fits them and stores the results, and ``report`` writes tables and plots.

How the default is chosen: candidates are compared on the validation dialogues of all tasks, at 100
and 400 human labels, five seeds, by the mean of accuracy and macro-F1 over tasks and numbers of
labels. The simplest candidate within half a point of the best one is taken: fewer stages before
more, no pairs before pairs, fewer layers before more. A part that does not raise the mean is
not in the default. Afterwards, the test dialogues are scored once, with the chosen default.
"""
