{{- define "modelwright.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-modelwright" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "modelwright.selector" -}}
app.kubernetes.io/name: modelwright-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "modelwright.releaseLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: modelwright
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "modelwright.labels" -}}
{{ include "modelwright.selector" . }}
{{ include "modelwright.releaseLabels" . }}
{{- end }}

{{- define "modelwright.cacheSelector" -}}
app.kubernetes.io/name: modelwright-node-cache
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "modelwright.cacheLabels" -}}
{{ include "modelwright.cacheSelector" . }}
{{ include "modelwright.releaseLabels" . }}
{{- end }}

{{- define "modelwright.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the operator does in the namespaces of ModelDeployments: a rule a resource, with the verbs that the code uses.
     A test fails on one that nothing needs. */}}
{{- define "modelwright.rules" -}}
- apiGroups: [modelwright.dev]
  resources: [modeldeployments]
  verbs: [list, watch]
- apiGroups: [modelwright.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
- apiGroups: [modelwright.dev]
  resources: [modelroutes]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [controllerrevisions, replicasets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The gateways of each namespace. Their Role grants only what stands above.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [list, watch, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
