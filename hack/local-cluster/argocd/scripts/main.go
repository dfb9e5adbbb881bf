// What Argo CD and kstatus make of objects: their own code, without a cluster.
//
//	argocd-scripts argocd-cm.yaml < questions.json
//
// A question is an object with what Git says of it ({"object": ..., "git": ... or null}). An answer tells its health, what
// kstatus calls it, the actions that Argo CD offers, the merge patch that each of them sends to the API server, and
// whether Argo CD, comparing without a server, finds it OutOfSync.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	appv1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/argoproj/gitops-engine/pkg/health"
	jsonpatch "github.com/evanphx/json-patch"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const namespace = "argocd"

type question struct {
	Object map[string]any `json:"object"`
	Git    map[string]any `json:"git"`
}

type answer struct {
	Health    *health.HealthStatus       `json:"health"`
	KStatus   string                     `json:"kstatus"`
	Actions   []appv1.ResourceAction     `json:"actions"`
	Patches   map[string]json.RawMessage `json:"patches"`
	OutOfSync bool                       `json:"outOfSync"`
}

func main() {
	logrus.SetOutput(io.Discard)
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(configMap string) error {
	overrides, err := overridesOf(configMap)
	if err != nil {
		return err
	}
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		return err
	}
	answers := make([]answer, len(questions))
	for i, one := range questions {
		if answers[i], err = ask(one, overrides); err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

// The customizations as Argo CD reads them of its ConfigMap, by the names of their keys.
func overridesOf(path string) (map[string]appv1.ResourceOverride, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	configMap := corev1.ConfigMap{}
	if err := yaml.UnmarshalStrict(text, &configMap); err != nil {
		return nil, err
	}
	configMap.Namespace = namespace
	configMap.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	secret := corev1.Secret{}
	secret.Name, secret.Namespace, secret.Labels = "argocd-secret", namespace, configMap.Labels
	manager := settings.NewSettingsManager(context.Background(), fake.NewClientset(&configMap, &secret), namespace)
	return manager.GetResourceOverrides()
}

func ask(one question, overrides map[string]appv1.ResourceOverride) (answer, error) {
	said, object := answer{}, typed(one.Object)
	var err error
	if said.Health, err = health.GetResourceHealth(object, lua.ResourceHealthOverrides(overrides)); err != nil {
		return said, err
	}
	result, err := status.Compute(object)
	if err != nil {
		return said, err
	}
	said.KStatus = string(result.Status)
	vm := lua.VM{ResourceOverrides: overrides}
	scripts, err := vm.GetResourceActionDiscovery(object)
	if err != nil {
		return said, err
	}
	if said.Actions, err = vm.ExecuteResourceActionDiscovery(object, scripts); err != nil {
		return said, err
	}
	if said.Patches, err = patches(vm, object, said.Actions); err != nil {
		return said, err
	}
	if one.Git != nil {
		found, err := diff.Diff(typed(one.Git), object)
		if err != nil {
			return said, err
		}
		said.OutOfSync = found.Modified
	}
	return said, nil
}

// What each action sends, made as Argo CD's server makes it (runResourceAction, patchResource).
func patches(vm lua.VM, object *unstructured.Unstructured, actions []appv1.ResourceAction) (map[string]json.RawMessage, error) {
	made := map[string]json.RawMessage{}
	before, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	for _, one := range actions {
		action, err := vm.GetResourceAction(object, one.Name)
		if err != nil {
			return nil, err
		}
		impacted, err := vm.ExecuteResourceAction(object, action.ActionLua, nil)
		if err != nil {
			return nil, err
		}
		if len(impacted) != 1 || impacted[0].K8SOperation != lua.PatchOperation {
			return nil, fmt.Errorf("%s changes %d objects", one.Name, len(impacted))
		}
		after, err := json.Marshal(impacted[0].UnstructuredObj)
		if err != nil {
			return nil, err
		}
		if made[one.Name], err = jsonpatch.CreateMergePatch(before, after); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// Whole numbers are int64 in what a cluster's client reads, and kstatus asks for these.
func typed(object map[string]any) *unstructured.Unstructured {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	found := &unstructured.Unstructured{}
	if err := found.UnmarshalJSON(text); err != nil {
		panic(err)
	}
	return found
}
