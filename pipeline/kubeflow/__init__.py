"""The pipeline on Kubeflow Pipelines 2: each step a container that runs `pipeline.run_node`."""
