# Sourced by node.sh and worker.sh: what PID 1 of a node's own net, mount, pid, uts and ipc namespaces does first, and how
# it keeps what it starts alive. Both have STATE, NODE_NAME and NODE_LOGS in the environment.

mount --make-rshared /
mount --bind "$STATE/var-lib-kubelet" /var/lib/kubelet
mount --bind "$STATE/var-lib-cni" /var/lib/cni
mount --bind "$STATE/var-log-containers" /var/log/containers
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/containerd
echo "$NODE_NAME" > /proc/sys/kernel/hostname
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up

# Whoever started us makes the veth pair once it knows this process's id; the name of our end comes last.
join() { # link address gateway
  for _ in $(seq 200); do
    ip link show "$1" > /dev/null 2>&1 && break
    sleep 0.05
  done
  ip addr add "$2/$LINK_PREFIX" dev "$1"
  ip link set "$1" up
  ip route add default via "$3"
}

# A component that ends is started again: most end at once when the API server is not there yet.
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
