#!/bin/bash
# stage-etcd NAME MEMBER...: one of the members of a stage's etcd. All have certificates of one
# authority in /etc/etcd, and admit only who has one too.
set -Eeuo pipefail
name=$1
shift
data=/var/lib/etcd
cluster='' others=''
for member in "$@"; do
    cluster+="${cluster:+,}$member=https://$member:2380"
    if [ "$member" != "$name" ]; then others+="${others:+,}https://$member:2379"; fi
done

ctl() {
    etcdctl --endpoints="$others" --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/tls.crt \
        --key=/etc/etcd/tls.key --command-timeout=5s "$@"
}

# With its volume gone it is another member than the one of its name that the others know, which
# they would not admit: it takes that one's place. One that has never answered clients has no
# address for them yet: that is the first start. The mark stays until it has joined.
joining=$data/joining
if [ ! -e "$data/member" ] && [ ! -e "$joining" ]; then
    listed=$(ctl member list 2>/dev/null || true)
    lost=$(awk -F', ' -v name="$name" '$3 == name && $5 != "" { print $1 }' <<<"$listed")
    if [ -n "$lost" ]; then
        touch "$joining"
        ctl member remove "$lost"
    fi
fi
state=new
if [ -e "$joining" ]; then
    state=existing
    if [ ! -e "$data/member" ] && ! ctl member list | grep -qF "https://$name:2380"; then
        ctl member add "$name" --peer-urls="https://$name:2380"
    fi
fi

exec etcd --name="$name" --data-dir="$data" \
    --initial-cluster="$cluster" --initial-cluster-state="$state" --initial-cluster-token=stage \
    --listen-peer-urls=https://0.0.0.0:2380 --initial-advertise-peer-urls="https://$name:2380" \
    --listen-client-urls=https://0.0.0.0:2379 --advertise-client-urls="https://$name:2379" \
    --listen-metrics-urls=http://0.0.0.0:2381 \
    --client-cert-auth --trusted-ca-file=/etc/etcd/ca.crt \
    --cert-file=/etc/etcd/tls.crt --key-file=/etc/etcd/tls.key \
    --peer-client-cert-auth --peer-trusted-ca-file=/etc/etcd/ca.crt \
    --peer-cert-file=/etc/etcd/tls.crt --peer-key-file=/etc/etcd/tls.key \
    --auto-compaction-mode=periodic --auto-compaction-retention=1h \
    --heartbeat-interval=200 --election-timeout=2000 --logger=zap --log-level=warn
