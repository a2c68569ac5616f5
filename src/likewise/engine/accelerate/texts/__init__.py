"""The engine for models that make a prediction of each text: classifiers and sentence encoders, without torch."""
