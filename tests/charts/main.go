// Prints what a chart makes of a file of values, by Helm's own engine: chart FOLDER VALUES RELEASE NAMESPACE
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// The oldest version of Kubernetes that docs/install-kubernetes.md names.
const kubernetes = "v1.30.0"

func main() {
	if err := render(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render(arguments []string) error {
	if len(arguments) != 4 {
		return fmt.Errorf("usage: chart FOLDER VALUES RELEASE NAMESPACE")
	}
	folder, file, release, namespace := arguments[0], arguments[1], arguments[2], arguments[3]
	chart, err := loader.LoadDir(folder)
	if err != nil {
		return err
	}
	values, err := chartutil.ReadValuesFile(file)
	if err != nil {
		return err
	}
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return err
	}
	capabilities := *chartutil.DefaultCapabilities
	capabilities.KubeVersion = *version
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, options, &capabilities)
	if err != nil {
		return err
	}
	rendered, err := engine.Render(chart, all)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(rendered))
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(rendered[name])
		// Notes are for people, and what a chart tests itself with is made on demand only.
		if text == "" || strings.HasSuffix(name, "NOTES.txt") || strings.Contains(name, "/tests/") {
			continue
		}
		fmt.Printf("---\n# %s\n%s\n", name, text)
	}
	return nil
}
