// What Istio's injector makes of manifests: its own code, without a cluster and without its webhook.
//
//	istio-inject sidecar-injector.yaml < manifests.yaml > injected.yaml
//
// The file is the ConfigMap istio-sidecar-injector as Istio's chart renders it. What is not injected is said on stderr.
package main

import (
	"fmt"
	"io"
	"os"

	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/kube/inject"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string, in io.Reader, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	configMap := corev1.ConfigMap{}
	if err := yaml.UnmarshalStrict(text, &configMap); err != nil {
		return err
	}
	config, err := inject.UnmarshalConfig([]byte(configMap.Data["config"]))
	if err != nil {
		return err
	}
	templates, err := inject.ParseTemplates(config.RawTemplates)
	if err != nil {
		return err
	}
	values, err := inject.NewValuesConfig(configMap.Data["values"])
	if err != nil {
		return err
	}
	said := func(warning string) { fmt.Fprint(os.Stderr, warning) }
	return inject.IntoResourceFile(nil, templates, values, "", mesh.DefaultMeshConfig(), in, out, said)
}
