"""Evidence on real LLM labels: this package's student against what people do today.

    python -m benchmarks.evidence --data-dir DIR

``data`` makes the cells, ``features`` embeds their texts, ``baselines`` and ``ours`` are the
methods, ``run`` fits them and keeps the results, ``report`` makes tables and plots of these.
"""
