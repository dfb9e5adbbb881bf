"""What the demo and the end-to-end tests stand on: a cluster, images, the release, an object store, live traffic.

    cluster = harness.cluster.choose()            CLUSTER=local | kind | current, or what this machine can do
    cluster.up()
    images = harness.images.build(cluster)
    harness.release.install(cluster, images)
    kube, store = Kube(cluster), harness.s3.connect(cluster)
    index = VixIndex(kube, "demo", "pydocs")
    with harness.traffic.to_index(kube, images, index, harness.traffic.bodies(parquet), rate=250) as traffic: ...

Every wait has a bound, and says what it waited for and what it saw last.
"""
