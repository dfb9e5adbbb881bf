#!/bin/bash
# PID 1 of a second node's own net, mount, pid, uts and ipc namespaces: what runs its pods, and no control plane.
# second.py starts it with every ${NAME} of second.substitutions() in the environment; when it ends, the node is lost.
set -euo pipefail

mount --make-rshared /
mount --bind "$STATE/var-lib-kubelet" /var/lib/kubelet
mount --bind "$STATE/var-lib-cni" /var/lib/cni
mount --bind "$STATE/var-log-containers" /var/log/containers
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/containerd
echo "$NODE_NAME" > /proc/sys/kernel/hostname
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up

# second.py makes the veth pair once it knows this process's id.
for _ in $(seq 200); do
  ip link show "$WORKER_LINK" > /dev/null 2>&1 && break
  sleep 0.05
done
ip addr add "$WORKER_IP/$LINK_PREFIX" dev "$WORKER_LINK"
ip link set "$WORKER_LINK" up
ip route add default via "$WORKER_GATEWAY"

keep() { # name command...
  local name=$1
  shift
  (
    while :; do
      "$@" >> "$NODE_LOGS/$name.log" 2>&1 || true
      echo "--- $name ended, starting it again" >> "$NODE_LOGS/$name.log"
      sleep 1
    done
  ) &
}

keep containerd containerd --config "$CONF/containerd.toml"
keep kube-proxy "$KUBE" kube-proxy --config="$CONF/proxy.yaml"
keep kubelet "$KUBE" kubelet --kubeconfig="$CONF/kubelet.kubeconfig" --config="$CONF/kubelet.yaml" \
  --hostname-override="$NODE_NAME" --node-ip="$WORKER_IP" --root-dir="$STATE/kubelet"
wait
