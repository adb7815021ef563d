// Reads objects of the Prometheus Operator from standard input, as YAML, and fails where one has a field that the operator's own types
// do not have. Says how many it has read.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

func main() {
	count, err := check(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(count)
}

func check(input io.Reader) (int, error) {
	documents := yaml.NewDocumentDecoder(io.NopCloser(input))
	defer documents.Close()
	text := make([]byte, 1<<20)
	for count := 0; ; count++ {
		length, err := documents.Read(text)
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		if err := checkOne(text[:length]); err != nil {
			return count, err
		}
	}
}

func checkOne(document []byte) error {
	var kind struct {
		Kind string `json:"kind"`
	}
	if err := strict.Unmarshal(document, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case monitoring.PodMonitorsKind:
		return strict.UnmarshalStrict(document, &monitoring.PodMonitor{})
	case monitoring.PrometheusRuleKind:
		return strict.UnmarshalStrict(document, &monitoring.PrometheusRule{})
	default:
		return fmt.Errorf("%q is no kind that is known here", kind.Kind)
	}
}
