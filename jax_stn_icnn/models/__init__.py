"""The networks: interlinked CNN, localizers, and the pipeline that joins them."""
