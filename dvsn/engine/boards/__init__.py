"""What a run shows in W&B, TensorBoard, MLflow and Comet: one interface (`board.py`), a file for each."""
