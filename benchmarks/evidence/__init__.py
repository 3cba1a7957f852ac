"""Evidence on real LLM labels: this package's student against what people do today.

    python -m benchmarks.evidence --data-dir DIR

``data`` makes the cells, ``features`` embeds their texts, ``baselines`` and ``ours`` are the
methods, ``run`` fits them and keeps the results, ``report`` makes tables and plots of these.

How a default is chosen. Candidates are compared on the validation dialogues of all tasks, at 100
and 400 human labels, five seeds, by the mean of accuracy and macro-F1 over tasks and numbers of
labels. The simplest candidate within half a point of the best one is taken: fewer stages before
more, no pairs before pairs, fewer layers before more. A part that does not raise the mean is not
in the default. Test dialogues are scored afterwards, once, with the default that was chosen.
"""
