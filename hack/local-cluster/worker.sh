#!/bin/bash
# PID 1 of a second node's own net, mount, pid, uts and ipc namespaces: what runs its pods, and no control plane.
# second.py starts it with every ${NAME} of second.substitutions() in the environment; when it ends, the node is lost.
set -euo pipefail
. "$(dirname "$0")/namespaces.sh"
join "$WORKER_LINK" "$WORKER_IP" "$WORKER_GATEWAY"

keep containerd containerd --config "$CONF/containerd.toml"
keep kube-proxy "$KUBE" kube-proxy --config="$CONF/proxy.yaml"
keep kubelet "$KUBE" kubelet --kubeconfig="$CONF/kubelet.kubeconfig" --config="$CONF/kubelet.yaml" \
  --hostname-override="$NODE_NAME" --node-ip="$WORKER_IP" --root-dir="$STATE/kubelet"
wait
