// Command cluster is a whole Kubernetes control plane and node in one program.
//
// Its first argument names the component to be, the rest are that component's own flags:
//
//	cluster kube-apiserver --etcd-servers=...
//
// One program rather than seven, because they share nearly all of their code: it is built, linked and stored once.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

// components maps the name of a component to what runs it. The returned number is the exit code of the process.
var components = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          runAPIServer,
	"kube-controller-manager": runControllerManager,
	"kube-scheduler":          runScheduler,
	"kube-proxy":              runProxy,
	"kubelet":                 runKubelet,
	"kubectl":                 runKubectl,
}

func main() {
	if len(os.Args) < 2 {
		usage("no component given")
	}
	run, known := components[os.Args[1]]
	if !known {
		usage(fmt.Sprintf("unknown component %q", os.Args[1]))
	}
	// Each component parses os.Args itself and takes the first one for its own name.
	os.Args = os.Args[1:]
	os.Exit(run())
}

func usage(problem string) {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "cluster: %s\nusage: cluster COMPONENT [FLAG...]\ncomponents: %s\n",
		problem, strings.Join(names, ", "))
	os.Exit(2)
}
