#!/bin/bash
# PID 1 of the node's own net, mount, pid, uts and ipc namespaces: one Kubernetes node and its control plane.
# node.py starts it with every ${NAME} of layout.substitutions() in the environment; when it ends, all ends.
set -euo pipefail
. "$(dirname "$0")/namespaces.sh"
join "$NODE_LINK" "$NODE_IP" "$HOST_IP"

keep containerd containerd --config "$CONF/containerd.toml"

# No fsync: a crash of the whole machine may cost this cluster's state, a stop or a kill does not.
keep etcd "$KUBE" etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380

keep kube-apiserver "$KUBE" kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
  --secure-port="$API_PORT" --advertise-address="$NODE_IP" --service-cluster-ip-range="$SERVICE_CIDR" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP,Hostname \
  --audit-policy-file="$CONF/audit-policy.yaml" --audit-log-path="$AUDIT_LOG" \
  --audit-log-maxsize="$AUDIT_MEGABYTES" --audit-log-maxbackup="$AUDIT_BACKUPS" \
  --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
  --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key"

for _ in $(seq 300); do
  ready=$(curl -s --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
    "https://$NODE_IP:$API_PORT/readyz" || true)
  [ "$ready" = ok ] && break
  sleep 0.2
done

as() { echo "--kubeconfig=$CONF/$1.kubeconfig --authentication-kubeconfig=$CONF/$1.kubeconfig" \
  "--authorization-kubeconfig=$CONF/$1.kubeconfig --leader-elect=false --bind-address=127.0.0.1"; }

# shellcheck disable=SC2046  # the flags must split
keep kube-controller-manager "$KUBE" kube-controller-manager $(as controller-manager) \
  --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --use-service-account-credentials --allocate-node-cidrs=true --cluster-cidr="$CLUSTER_CIDR" \
  --service-cluster-ip-range="$SERVICE_CIDR"
# shellcheck disable=SC2046
keep kube-scheduler "$KUBE" kube-scheduler $(as scheduler)
keep kube-proxy "$KUBE" kube-proxy --config="$CONF/proxy.yaml"
keep coredns "$COREDNS" -conf "$CONF/Corefile"
keep kubelet "$KUBE" kubelet --kubeconfig="$CONF/kubelet.kubeconfig" --config="$CONF/kubelet.yaml" \
  --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --root-dir="$STATE/kubelet"
wait
