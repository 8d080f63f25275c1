"""The names and addresses of the one-node cluster. All of them stay on this machine."""

NODE = "node1"
DOMAIN = "cluster.local"

BRIDGE = "embsvc0"
BRIDGE_MAC = "02:00:0a:55:00:01"
# The bridge's address is the node's and the API server's, and where pods reach servers of this machine.
NODE_ADDRESS = "10.85.0.1"
PODS = "10.85.0.0/16"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
# A loopback address of our own, so that no port of another etcd or kubelet is in the way.
LOOPBACK = "127.85.0.1"

API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
DNS_PORT = 1053

API_SERVER = f"https://{NODE_ADDRESS}:{API_PORT}"
ETCD = f"http://{LOOPBACK}:{ETCD_PORT}"
