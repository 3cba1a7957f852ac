"""A classifier that learns texts by heart, and the utterances of hand-made dialogues."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator


class Oracle(BaseEstimator):
    """Predicts the mean of the labels that it learned for a text."""

    def fit(self, X, y_human, y_llm=None):
        self.human_, self.llm_ = y_human, y_llm
        labels = y_human if y_llm is None else np.where(np.isnan(y_human), y_llm, y_human)
        table = pd.DataFrame(labels).groupby(X["text"].to_numpy()).mean()
        self.table_ = table.fillna(0.0)
        return self

    def predict_proba(self, X):
        return self.table_.reindex(X["text"]).fillna(0.0).to_numpy()

    def predict(self, X):
        return (self.predict_proba(X) >= 0.5).astype(int)


def frame(*dialogues, speakers=None):
    rows = [(number, text) for number, texts in enumerate(dialogues) for text in texts]
    X = pd.DataFrame(rows, columns=["dialogue_id", "text"])
    return X if speakers is None else X.assign(speaker=speakers)
