{{- define "vectorindex-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "vectorindex-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "vectorindex-operator.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "vectorindex-operator.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "vectorindex-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "vectorindex-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The same as name=value,... */}}
{{- define "vectorindex-operator.selectorPairs" -}}
{{- $pairs := list }}
{{- range $name, $value := include "vectorindex-operator.selectorLabels" . | fromYaml }}{{ $pairs = append $pairs (printf "%s=%s" $name $value) }}{{ end }}
{{- join "," $pairs }}
{{- end }}

{{- /* The searcher pods of every index; see labels.py. */}}
{{- define "vectorindex-operator.searcherLabels" -}}
app.kubernetes.io/component: searcher
app.kubernetes.io/managed-by: vectorindex-operator
{{- end }}

{{- define "vectorindex-operator.labels" -}}
{{ include "vectorindex-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: vectorindex
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The namespaces that are watched, with commas between them; empty: all. */}}
{{- define "vectorindex-operator.watched" -}}
{{- if .Values.watchNamespaces }}{{ join "," .Values.watchNamespaces }}{{ else if eq .Values.scope "namespace" }}{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- /* Of a list of the context and a value's name: refuses a value that asks for what no right in a namespace can make. */}}
{{- define "vectorindex-operator.needsCluster" -}}
{{- if eq (first .).Values.scope "namespace" }}
{{- fail (printf "%s makes ValidatingAdmissionPolicies, which are the cluster's: whoever installs with scope=cluster sets it" (last .)) }}
{{- end }}
{{- end }}

{{- define "vectorindex-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "vectorindex-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* An image reference from a dict: repository, tag (already defaulted), digest. */}}
{{- define "vectorindex-operator.reference" -}}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository .tag }}{{ end }}
{{- end }}

{{- define "vectorindex-operator.image" -}}
{{- $repository := required "image.repository is required: the registry path of the operator's image, for example --set image.repository=REGISTRY/vectorindex-operator (build it with the Dockerfile's target operator)" .Values.image.repository }}
{{- include "vectorindex-operator.reference" (dict "repository" $repository "tag" (default .Chart.AppVersion .Values.image.tag) "digest" .Values.image.digest) }}
{{- end }}

{{- define "vectorindex-operator.searcherImage" -}}
{{- $beside := printf "%s-searcher" (.Values.image.repository | trimSuffix "-operator") }}
{{- $tag := coalesce .Values.searcherImage.tag .Values.image.tag .Chart.AppVersion }}
{{- include "vectorindex-operator.reference" (dict "repository" (default $beside .Values.searcherImage.repository) "tag" $tag "digest" .Values.searcherImage.digest) }}
{{- end }}

{{- define "vectorindex-operator.gpuImage" -}}
{{- if .Values.gpuImage.repository }}
{{- $tag := coalesce .Values.gpuImage.tag .Values.image.tag .Chart.AppVersion }}
{{- include "vectorindex-operator.reference" (dict "repository" .Values.gpuImage.repository "tag" $tag "digest" .Values.gpuImage.digest) }}
{{- end }}
{{- end }}

{{- /* The Secret with the key of internal requests; empty: they are not signed. The chart makes one only where Helm sees the
cluster, and so finds it again: `helm template` and Argo CD would draw another key each time. */}}
{{- define "vectorindex-operator.internalKeySecret" -}}
{{- if .Values.internalKey.existingSecret }}
{{- .Values.internalKey.existingSecret }}
{{- else if .Values.internalKey.create }}
{{- $name := printf "%s-internal-key" (include "vectorindex-operator.fullname" . | trunc 50 | trimSuffix "-") }}
{{- if lookup "v1" "Secret" .Release.Namespace $name }}
{{- $name }}
{{- else if include "vectorindex-operator.seesCluster" . }}
{{- $name }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Asks for what is in every cluster, and what whoever installs the chart may read. */}}
{{- define "vectorindex-operator.seesCluster" -}}
{{- $watched := include "vectorindex-operator.watched" . | splitList "," | compact }}
{{- if $watched }}
{{- if lookup "v1" "ServiceAccount" (first $watched) "default" }}true{{ end }}
{{- else if lookup "v1" "Namespace" "" "default" }}true{{ end }}
{{- end }}

{{- /* One validation: `field` of the spec has a value of `list`, where a trailing * stands for anything, or the value it had
before: what runs already can still be annotated, scaled and mended. `optional`: what is left out is allowed; else it is the value
"" (of an endpoint: the cloud's own) where the object around it is there. */}}
{{- define "vectorindex-operator.allowed" -}}
{{- $parts := splitList "." .field }}
{{- $value := printf "spec.?%s.orValue('')" (join ".?" $parts) }}
{{- $there := printf "spec.?%s.hasValue()" (initial $parts | join ".?") }}
{{- $exact := list }}
{{- $prefixes := list }}
{{- $shown := list }}
{{- range .list }}
{{- if and $.optional (hasSuffix "*" .) }}{{ $prefixes = append $prefixes (trimSuffix "*" .) }}{{ else }}{{ $exact = append $exact . }}{{ end }}
{{- if lt (len $shown) 8 }}{{ $shown = append $shown (printf "'%s'" .) }}{{ end }}
{{- end }}
{{- if gt (len .list) (len $shown) }}{{ $shown = append $shown (printf "%d more" (sub (len .list) (len $shown))) }}{{ end -}}
- expression: >-
    {{ if .optional }}object.{{ $value }} == ''{{ else }}!object.{{ $there }}{{ end }}
    || object.{{ $value }} in {{ toJson $exact }}
    {{- range $prefixes }}
    || object.{{ $value }}.startsWith({{ toJson . }})
    {{- end }}
    || (oldObject != null && oldObject.{{ $there }} && oldObject.{{ $value }} == object.{{ $value }})
  messageExpression: >-
    "spec.{{ .field }}: '" + object.{{ $value }} + "' may not be named here: allowed are {{ join ", " $shown | default "none" }}
    (rule {{ .rule }} in admission.rules of the vectorindex-operator chart)"
  reason: Forbidden
{{- end }}

{{- /* One validation: the claims among the volumes of a pod (`field`) are of `list`, or these volumes were there before. */}}
{{- define "vectorindex-operator.mounted" -}}
{{- $value := printf "spec.?%s.orValue([])" (splitList "." .field | join ".?") -}}
{{- $exact := list }}
{{- $prefixes := list }}
{{- range .list }}
{{- if hasSuffix "*" . }}{{ $prefixes = append $prefixes (trimSuffix "*" .) }}{{ else }}{{ $exact = append $exact . }}{{ end }}
{{- end -}}
- expression: >-
    object.{{ $value }}.all(v, !has(v.persistentVolumeClaim)
    || v.persistentVolumeClaim.claimName in {{ toJson $exact }}
    {{- range $prefixes }}
    || v.persistentVolumeClaim.claimName.startsWith({{ toJson . }})
    {{- end }})
    || (oldObject != null && oldObject.{{ $value }} == object.{{ $value }})
  message: "spec.{{ .field }}: one names a claim that may not be named here
    (claimNames of rule {{ .rule }} in admission.rules of the vectorindex-operator chart)"
  reason: Forbidden
{{- end }}

{{- /* No variable by which what is for an endpoint goes through a proxy of the user's, or is believed of another server. */}}
{{- define "vectorindex-operator.goesThere" -}}
{{- $value := printf "spec.?%s.orValue([])" (splitList "." .field | join ".?") -}}
- expression: >-
    object.{{ $value }}.all(e, !(e.name.lowerAscii().endsWith('_proxy') || e.name.startsWith('AWS_')
    || e.name.startsWith('OTEL_EXPORTER_')
    || e.name in ['REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE', 'SSL_CERT_DIR']))
    || (oldObject != null && oldObject.{{ $value }} == object.{{ $value }})
  message: "spec.{{ .field }}: no AWS_, no proxy, no CA and no collector of traces may be chosen here, since they change which server is reached
    (rule {{ .rule }} in admission.rules of the vectorindex-operator chart)"
  reason: Forbidden
{{- end }}

{{- define "vectorindex-operator.pullSecretNames" -}}
{{- $names := list }}
{{- range .Values.imagePullSecrets }}{{ $names = append $names .name }}{{ end }}
{{- join "," $names }}
{{- end }}

{{- /* One for each class; see adapters/lease.py. */}}
{{- define "vectorindex-operator.lease" -}}
vectorindex-operator{{ if ne .Values.operatorClass "default" }}-{{ .Values.operatorClass }}{{ end }}
{{- end }}

{{- /* What the operator may do in the namespaces it watches: what tests/apiserver/test_rights.py saw it do, no more. It reads no Secret and no ConfigMap and runs no command in a pod. */}}
{{- define "vectorindex-operator.rules" -}}
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes]
  verbs: [get, list, watch]
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes/status, vectorindexrevisions/status]
  verbs: [patch]
# To own objects, where the cluster enforces OwnerReferencesPermissionEnforcement.
- apiGroups: [vectorindex.dev]
  resources: [vectorindexes/finalizers, vectorindexrevisions/finalizers]
  verbs: [update]
# To patch: finalizers, of indexes with spec.artifacts.deletionPolicy: Delete.
- apiGroups: [vectorindex.dev]
  resources: [vectorindexrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Of indexes with spec.searcher.networkPolicy: Managed.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch{{ if .Values.routes.enabled }}, delete{{ end }}]
{{- if .Values.routes.enabled }}
# Of indexes with spec.rollout.route; Services that a canary had are deleted.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, create, patch, delete]
{{- end }}
{{- if .Values.kueue.enabled }}
# Of indexes with spec.build.queueName: why their Jobs wait.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
