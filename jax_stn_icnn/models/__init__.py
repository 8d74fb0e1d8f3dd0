"""The networks: interlinked CNN, U-Net, localizers, and the pipeline that connects them."""
