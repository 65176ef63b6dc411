// The release of Argo Workflows whose controller judges retries: that of Kubeflow Pipelines 2.17.
module ndr/tests/argo

go 1.25.7

require github.com/argoproj/argo-workflows/v4 v4.0.5
