// Laid into a copy of Argo's own package, so that it has its controller and the fakes of its tests.

package controller

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	apiv1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	wfv1 "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v4/util/logging"
)

// question: a step with a retry strategy, and how its attempts end, one after the other.
type question struct {
	RetryStrategy json.RawMessage `json:"retryStrategy"`
	Attempts      []struct {
		Minutes float64 `json:"minutes"` // from the attempt's start to its end
		End     string  `json:"end"`     // succeeded, failed, deadline, deleted, evicted
	} `json:"attempts"`
}

// verdict: what the controller made of one attempt.
type verdict struct {
	Node        string   `json:"node"`         // the phase that it gave the attempt
	Retried     bool     `json:"retried"`      // another pod was started
	WaitSeconds float64  `json:"wait_seconds"` // before that
	KilledAfter *float64 `json:"killed_after"` // minutes from the attempt's start at which Argo's executor would end it
	Message     string   `json:"message"`
}

type answer struct {
	Verdicts []verdict `json:"verdicts"`
	Phase    string    `json:"phase"` // the step's, at last
	Message  string    `json:"message"`
}

const stepWorkflow = `{
  "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "day", "namespace": "default"},
  "spec": {"entrypoint": "step", "templates": [{"name": "step", "retryStrategy": %s,
           "container": {"image": "ndr", "command": ["python"]}}]}}`

func TestNdrSteps(t *testing.T) {
	var questions []question
	read, err := os.ReadFile(os.Getenv("NDR_QUESTIONS"))
	if err == nil {
		err = json.Unmarshal(read, &questions)
	}
	if err != nil {
		t.Fatal(err)
	}
	answers := []answer{}
	for _, q := range questions {
		answers = append(answers, judge(t, q))
	}
	written, err := json.Marshal(answers)
	if err == nil {
		err = os.WriteFile(os.Getenv("NDR_ANSWERS"), written, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func judge(t *testing.T, q question) answer {
	ctx := logging.TestContext(t.Context())
	wf := wfv1.MustUnmarshalWorkflow(fmt.Sprintf(stepWorkflow, q.RetryStrategy))
	cancel, controller := newController(ctx, wf, defaultServiceAccount)
	defer cancel()
	woc := newWorkflowOperationCtx(ctx, wf, controller)
	pods := func() []apiv1.Pod {
		listed, err := listPods(ctx, woc)
		if err != nil {
			t.Fatal(err)
		}
		return listed.Items
	}
	operate := func() {
		woc = newWorkflowOperationCtx(ctx, woc.wf, controller)
		woc.operate(ctx)
		syncPodsInformer(ctx, woc)
	}
	// Argo reads the clock; so that time passes, everything that it has noted lies further back.
	pass := func(d time.Duration) {
		for id, node := range woc.wf.Status.Nodes {
			node.StartedAt = metav1.NewTime(node.StartedAt.Add(-d))
			if !node.FinishedAt.IsZero() {
				node.FinishedAt = metav1.NewTime(node.FinishedAt.Add(-d))
			}
			woc.wf.Status.Nodes[id] = node
		}
	}
	step := func() wfv1.NodeStatus { return woc.wf.Status.Nodes[woc.wf.NodeID(woc.wf.Name)] }
	operate()
	result := answer{Verdicts: []verdict{}}
	for i, attempt := range q.Attempts {
		running := woc.wf.Status.Nodes[woc.wf.NodeID(fmt.Sprintf("%s(%d)", woc.wf.Name, i))]
		v := verdict{}
		for _, pod := range pods() {
			if pod.Annotations["workflows.argoproj.io/node-name"] != running.Name {
				continue
			}
			v.KilledAfter = deadline(pod)
			run(t, woc, &pod)
			operate()
			pass(time.Duration(attempt.Minutes * float64(time.Minute)))
			end(t, woc, pod, attempt.End)
			break
		}
		before := len(pods())
		operate()
		v.Node = string(woc.wf.Status.Nodes[running.ID].Phase)
		v.Message = step().Message
		for waited := time.Duration(0); len(pods()) == before && !step().Phase.Completed() && !woc.wf.Status.Phase.Completed() && waited < 3*time.Hour; waited += time.Second {
			pass(time.Second)
			operate()
			v.WaitSeconds = (waited + time.Second).Seconds()
		}
		v.Retried = len(pods()) > before
		if !v.Retried {
			v.Message = step().Message
		}
		result.Verdicts = append(result.Verdicts, v)
		if !v.Retried {
			break
		}
	}
	result.Phase, result.Message = string(step().Phase), step().Message
	if woc.wf.Status.Phase == wfv1.WorkflowError {
		result.Phase, result.Message = string(woc.wf.Status.Phase), woc.wf.Status.Message
	}
	return result
}

// deadline is what Argo tells its executor, which ends the container then; nil: none.
func deadline(pod apiv1.Pod) *float64 {
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, variable := range container.Env {
			if variable.Name != "ARGO_DEADLINE" || variable.Value == "" {
				continue
			}
			at, err := time.Parse(time.RFC3339, variable.Value)
			if err == nil && !at.IsZero() {
				minutes := time.Until(at).Round(time.Minute).Minutes()
				return &minutes
			}
		}
	}
	return nil
}

// run gives a pod the state in which it does its work.
func run(t *testing.T, woc *wfOperationCtx, pod *apiv1.Pod) {
	pod.Status.Phase = apiv1.PodRunning
	update(t, woc, pod)
}

// end gives a pod the state in which the kubelet or the cluster leaves it.
func end(t *testing.T, woc *wfOperationCtx, pod apiv1.Pod, how string) {
	ctx := logging.TestContext(t.Context())
	status := map[string]apiv1.PodStatus{
		"succeeded": {Phase: apiv1.PodSucceeded},
		"failed":    {Phase: apiv1.PodFailed, Message: "Pod failed"},
		"deadline":  {Phase: apiv1.PodFailed, Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"},
		"evicted":   {Phase: apiv1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."},
	}
	if how == "deleted" {
		if err := woc.controller.kubeclientset.CoreV1().Pods(woc.wf.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := woc.controller.PodController.TestingPodInformer().GetStore().Delete(&pod); err != nil {
			t.Fatal(err)
		}
		return
	}
	pod.Status = status[how]
	if how == "failed" {
		failed := apiv1.ContainerStateTerminated{ExitCode: 1, FinishedAt: metav1.Now()}
		pod.Status.ContainerStatuses = []apiv1.ContainerStatus{{Name: "main", State: apiv1.ContainerState{Terminated: &failed}}}
	}
	update(t, woc, &pod)
	if how == "succeeded" {
		woc.wf.Status.MarkTaskResultComplete(ctx, woc.nodeID(&pod))
	}
}

func update(t *testing.T, woc *wfOperationCtx, pod *apiv1.Pod) {
	updated, err := woc.controller.kubeclientset.CoreV1().Pods(woc.wf.Namespace).Update(logging.TestContext(t.Context()), pod, metav1.UpdateOptions{})
	if err == nil {
		err = woc.controller.PodController.TestingPodInformer().GetStore().Update(updated)
	}
	if err != nil {
		t.Fatal(err)
	}
}
