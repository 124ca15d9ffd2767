"""Training: the LightningModule, the LightningDataModule and their callbacks."""
