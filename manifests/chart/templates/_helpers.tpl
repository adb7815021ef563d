{{/* The names are fixed: a cluster has room for one installation. */}}

{{- define "arpeggio.labels" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/part-of: arpeggio
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "arpeggio.podLabels" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/part-of: arpeggio
app.kubernetes.io/version: {{ .Chart.AppVersion }}
{{- end }}

{{/* What kustomize calls matchLabels. */}}
{{- define "arpeggio.selector" -}}
app.kubernetes.io/name: arpeggio
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "arpeggio.image" -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end }}

{{/* The definition that is in the cluster must be this chart's: Helm never changes what stands in crds/. */}}
{{- define "arpeggio.checkDefinition" -}}
{{- $name := "addresspools.arpeggio.dev" }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- $wanted := .Files.Get "files/definition" | trim }}
{{- if and .Values.checkDefinition $there }}
{{- $has := dig "metadata" "annotations" "arpeggio.dev/definition" "" $there }}
{{- if ne $has $wanted }}
{{- fail (printf "the definition %s in this cluster is another one than that of chart %s, and Helm does not change it. Apply it, then do this again: helm show crds CHART | kubectl apply --server-side --force-conflicts -f -" $name .Chart.Version) }}
{{- end }}
{{- end }}
{{- end }}
