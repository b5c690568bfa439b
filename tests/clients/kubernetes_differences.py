#!/usr/bin/env python3
"""Sends one series of requests to two Kubernetes API servers and compares the answers.

    kubernetes_differences.py REAL_URL REAL_TOKEN EMULATED_URL EMULATED_TOKEN

Meant for a real kube-apiserver (without kubelets) and the sandbox's, both of one version and empty.
Statuses and bodies are compared field by field after what must differ (identities, times, versions
of resources) is replaced. Exit code 1 if a difference is not in ALLOWED.
"""
import json
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

# Differences that are understood. (pattern over "<request name> <path in the body>", why)
ALLOWED = [
    # What newer servers do and 1.20 does not; the sandbox speaks as the newer ones.
    (r"^(apply-unknown|apply-duplicate)\S* \$\.message", "since 1.22 the message names the object"),
    (r"f:fieldRef|f:nodeSelector|f:selector|f:roleRef", "atomic since 1.21 or 1.22"),
    (r"^(sts|pod-spec)-forbidden \$", "the list of mutable fields grew; 1.20 shows a Go diff for pods"),
    (r"^cm-merge-bad-json \$status", "500 before 1.25, 400 since"),
    (r"^sa-apply \$\.(secrets|metadata\.managedFields)", "accounts have no token secrets since 1.24"),
    (r"^c[rm]\S* \$.*f:status|^cr-(status|apply|list) \$.*managedFields$", "status set through the main path is not owned since 1.22"),
    (r"^pod-\S* \$.*f:status(\.f:phase|$)", "the same for pods"),
    (r"^crd-(create|make) \$\.status\.conditions", "null before 1.22, absent since"),
    (r"kubernetes\.io/metadata\.name|^namespace-\S* \$\.metadata\.(labels|managedFields\S*f:metadata)$", "the label of namespaces is since 1.21"),
    (r"^dep-strategic-(directive-\w+-(new-map|env|env-no-name|labels)|replace-no-items|delete-absent) ",
     "newer servers drop a directive with its object where nothing is there to merge it into"),
    (r"^apply-empty-map \$\.metadata\.managedFields", "1.20 does not record an empty map"),
    (r"persistentVolumeClaimRetentionPolicy|maxSurge|internalTrafficPolicy|ipFamil", "defaults of fields that 1.20 does not know"),
    (r"^job-create ", "labels, selector and fields that 1.20 does not know"),
    (r"^cron-", "v1beta1 is gone since 1.25, v1 is since 1.21"),
    (r"^token \$\.metadata", "a token request has no metadata in 1.20"),
    # The real one has no nodes.
    (r"^pod-\S* \$.*(nodeName|status)|^pod-(get|image) \$\.metadata\.managedFields$", "the sandbox's pods start"),
    # Words of Go's decoders.
    (r"^(cm-bad-json|cm-wrong-type|cm-wrong-kind|dep-wrong-type|list-bad-continue) \$\.message", "decoder's wording"),
]

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PATCH = "application/json-patch+json"
NS = "diff"
CORE = f"/api/v1/namespaces/{NS}"
APPS = f"/apis/apps/v1/namespaces/{NS}"


def container(**more):
    return {"name": "c", "image": "app:1", **more}


def workload(kind, name, spec=None, pod=None, labels=None, **more):
    body = {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}},
                 "template": {"metadata": {"labels": labels or {"app": name}},
                              "spec": {"containers": [container()], **(pod or {})}}, **(spec or {})}, **more}
    if kind == "DaemonSet":
        del body["spec"]["replicas"]
        body["spec"]["template"]["spec"]["nodeSelector"] = {"none": "such"}
    return body


def config_map(name="cm", data=None, **metadata):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    if data is not None:
        body["data"] = data
    return body


def requests():
    """(name, method, path, content type, body); a body may be a function of earlier answers."""
    def r(name, method, path, body=None, media=JSON):
        return (name, method, path, media, body)

    maps, accounts = f"{CORE}/configmaps", f"{CORE}/serviceaccounts"
    yield r("namespace-create", "POST", "/api/v1/namespaces", {"metadata": {"name": NS}})
    yield r("namespace-get", "GET", f"/api/v1/namespaces/{NS}")
    yield r("namespace-bad-name", "POST", "/api/v1/namespaces", {"metadata": {"name": "Bad_Name"}})
    yield r("wait-account", "WAIT", f"{accounts}/default")
    # --- configmaps: create, conflicts, names
    yield r("cm-create", "POST", maps, config_map(data={"a": "1"}))
    yield r("cm-exists", "POST", maps, config_map(data={"a": "1"}))
    yield r("cm-get", "GET", f"{maps}/cm")
    yield r("cm-missing", "GET", f"{maps}/none")
    yield r("cm-bad-name", "POST", maps, config_map("Bad_Name"))
    yield r("cm-no-name", "POST", maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})
    yield r("cm-wrong-kind", "POST", maps, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})
    yield r("cm-wrong-namespace", "POST", maps, config_map("x", namespace="other"))
    yield r("cm-no-namespace", "POST", "/api/v1/namespaces/absent/configmaps", config_map())
    yield r("cm-bad-json", "POST", maps, b"{nonsense")
    yield r("cm-rv-on-create", "POST", maps, config_map("x", resourceVersion="5"))
    yield r("cm-wrong-type", "POST", maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": 1}})
    yield r("cm-dry-run", "POST", f"{maps}?dryRun=All", config_map("dry", {"a": "1"}))
    yield r("cm-dry-run-wrong", "POST", f"{maps}?dryRun=Some", config_map("dry"))
    yield r("cm-dry-run-left-nothing", "GET", f"{maps}/dry")
    yield r("cm-bad-label", "POST", maps, config_map("x", labels={"a": "not valid!"}))
    yield r("cm-post-to-name", "POST", f"{maps}/cm", config_map())
    # --- update
    yield r("cm-put", "PUT", f"{maps}/cm", config_map(data={"a": "2", "b": "1"}))
    yield r("cm-put-stale", "PUT", f"{maps}/cm", config_map(data={"a": "3"}, resourceVersion="1"))
    yield r("cm-put-uid", "PUT", f"{maps}/cm", config_map(data={"a": "3"}, uid="00000000-0000-0000-0000-000000000000"))
    yield r("cm-put-other-name", "PUT", f"{maps}/cm", config_map("other"))
    yield r("cm-put-absent", "PUT", f"{maps}/none", config_map("none"))
    # --- patches
    yield r("cm-merge", "PATCH", f"{maps}/cm", {"data": {"a": None, "c": "3"}}, MERGE)
    yield r("cm-merge-same", "PATCH", f"{maps}/cm", {"data": {"c": "3"}}, MERGE)
    yield r("cm-merge-absent", "PATCH", f"{maps}/none", {"data": {"c": "3"}}, MERGE)
    yield r("cm-merge-other-name", "PATCH", f"{maps}/cm", {"metadata": {"name": "other"}}, MERGE)
    yield r("cm-merge-no-name", "PATCH", f"{maps}/cm", {"metadata": {"name": None}}, MERGE)
    yield r("cm-put-no-name", "PUT", f"{maps}/cm", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})
    yield r("cm-merge-stale", "PATCH", f"{maps}/cm", {"metadata": {"resourceVersion": "1"}, "data": {"c": "4"}}, MERGE)
    yield r("cm-json", "PATCH", f"{maps}/cm", [{"op": "add", "path": "/data/d", "value": "4"}, {"op": "remove", "path": "/data/c"}], PATCH)
    yield r("cm-json-test-fails", "PATCH", f"{maps}/cm", [{"op": "test", "path": "/data/d", "value": "5"}], PATCH)
    yield r("cm-json-test-uid-fails", "PATCH", f"{maps}/cm", [{"op": "test", "path": "/metadata/uid", "value": "x"}, {"op": "remove", "path": "/data/d"}], PATCH)
    yield r("cm-json-missing", "PATCH", f"{maps}/cm", [{"op": "remove", "path": "/data/none"}], PATCH)
    yield r("cm-json-add-missing-parent", "PATCH", f"{maps}/cm", [{"op": "add", "path": "/metadata/annotations/x", "value": "y"}], PATCH)
    yield r("cm-json-replace-missing", "PATCH", f"{maps}/cm", [{"op": "replace", "path": "/data/none", "value": "x"}], PATCH)
    yield r("cm-json-test-passes", "PATCH", f"{maps}/cm", [{"op": "test", "path": "/data/d", "value": "4"}], PATCH)
    yield r("cm-strategic", "PATCH", f"{maps}/cm", {"data": {"e": "5"}, "metadata": {"labels": {"x": "y"}}}, STRATEGIC)
    yield r("cm-patch-unknown-type", "PATCH", f"{maps}/cm", {"data": {}}, "application/x-unknown")
    yield r("cm-merge-bad-json", "PATCH", f"{maps}/cm", b"{bad", MERGE)
    yield r("cm-force-merge", "PATCH", f"{maps}/cm?force=true", {"data": {}}, MERGE)
    # --- server-side apply
    apply = lambda name, manager, body, more="": r(name, "PATCH", f"{maps}/ssa?fieldManager={manager}{more}", body, APPLY)
    yield apply("apply-create", "one", config_map("ssa", {"a": "1", "b": "1"}, labels={"x": "1"}))
    yield apply("apply-same", "one", config_map("ssa", {"a": "1", "b": "1"}, labels={"x": "1"}))
    yield apply("apply-conflict", "two", config_map("ssa", {"a": "2"}))
    yield apply("apply-two-conflicts", "two", config_map("ssa", {"a": "2", "b": "2"}))
    yield apply("apply-share", "two", config_map("ssa", {"b": "1"}))
    yield apply("apply-drop", "one", config_map("ssa", {"b": "1"}))
    yield apply("apply-drop-shared", "one", config_map("ssa"))
    yield apply("apply-force", "three", config_map("ssa", {"b": "9"}), "&force=true")
    yield r("apply-then-merge", "PATCH", f"{maps}/ssa?fieldManager=editor", {"data": {"b": "10", "z": "1"}}, MERGE)
    yield apply("apply-conflict-with-update", "three", config_map("ssa", {"b": "9"}))
    yield apply("apply-dry-run", "three", config_map("ssa", {"b": "11"}), "&force=true&dryRun=All")
    yield apply("apply-uid", "three", config_map("ssa", {"b": "10"}, uid="00000000-0000-0000-0000-000000000000"), "&force=true")
    yield apply("apply-stale", "three", config_map("ssa", {"b": "10"}, resourceVersion="1"), "&force=true")
    yield r("apply-no-manager", "PATCH", f"{maps}/ssa", config_map("ssa"), APPLY)
    yield apply("apply-unknown-field", "three", {**config_map("ssa"), "nonsense": 1})
    yield apply("apply-managed-fields", "three", config_map("ssa", managedFields=[{"manager": "x"}]))
    yield apply("apply-other-name", "three", config_map("other"))
    yield r("apply-uid-absent", "PATCH", f"{maps}/none?fieldManager=x", config_map("none", uid="00000000-0000-0000-0000-000000000000"), APPLY)
    yield apply("apply-empty-map", "four", config_map("ssa", {}))
    # --- over client-side apply
    last = json.dumps(config_map("csa", {"a": "1"}))
    yield r("csa-create", "POST", f"{maps}?fieldManager=kubectl-client-side-apply", config_map("csa", {"a": "1"}, annotations={"kubectl.kubernetes.io/last-applied-configuration": last}))
    yield r("csa-other-applies", "PATCH", f"{maps}/csa?fieldManager=other", config_map("csa", {"a": "2"}), APPLY)
    # --- reset of managed fields
    yield r("managed-reset", "PATCH", f"{maps}/csa", {"metadata": {"managedFields": [{}]}}, MERGE)
    yield r("managed-after-reset", "PATCH", f"{maps}/csa", {"data": {"q": "1"}}, MERGE)
    yield r("managed-first-apply", "PATCH", f"{maps}/csa?fieldManager=one", config_map("csa", {"a": "1", "n": "1"}), APPLY)
    # --- deployments
    deploy = f"{APPS}/deployments"
    yield r("dep-create", "POST", f"{deploy}?fieldManager=m", workload("Deployment", "web", pod={"serviceAccountName": "sa"}))
    yield r("dep-defaults", "POST", f"{deploy}?dryRun=All", workload("Deployment", "full", pod={
        "volumes": [{"name": "a"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "c", "configMap": {"name": "x"}},
                    {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "p", "audience": "a"}}, {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
                    {"name": "h", "hostPath": {"path": "/x"}}, {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}],
        "initContainers": [{"name": "i", "image": "b@sha256:" + "0" * 64}],
        "containers": [container(ports=[{"containerPort": 80}], env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "E", "value": ""}],
                                 livenessProbe={"httpGet": {"port": 80}}, readinessProbe={"exec": {"command": ["x"]}, "periodSeconds": 3},
                                 lifecycle={"postStart": {"httpGet": {"port": 80}}}, resources={"limits": {"cpu": "1"}}, volumeMounts=[{"name": "a", "mountPath": "/a"}],
                                 securityContext={"runAsUser": 1, "capabilities": {"drop": ["ALL"]}})]}))
    yield r("dep-recreate", "POST", f"{deploy}?dryRun=All", workload("Deployment", "rec", {"strategy": {"type": "Recreate"}}))
    yield r("dep-no-selector", "POST", deploy, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container()]}}}})
    yield r("dep-label-mismatch", "POST", deploy, workload("Deployment", "x", labels={"app": "y"}))
    yield r("dep-no-containers", "POST", deploy, workload("Deployment", "x", pod={"containers": []}))
    yield r("dep-no-image", "POST", deploy, workload("Deployment", "x", pod={"containers": [{"name": "c"}]}))
    yield r("dep-two-equal-names", "POST", deploy, workload("Deployment", "x", pod={"containers": [container(), container()]}))
    yield r("dep-restart-policy", "POST", deploy, workload("Deployment", "x", pod={"restartPolicy": "Never"}))
    yield r("dep-negative", "POST", deploy, workload("Deployment", "x", {"replicas": -1}))
    yield r("dep-wrong-type", "POST", deploy, workload("Deployment", "x", {"replicas": "two"}))
    yield r("dep-missing-volume", "POST", deploy, workload("Deployment", "x", pod={"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]}))
    yield r("dep-unknown-field", "POST", f"{deploy}?dryRun=All", workload("Deployment", "x", {"nonsense": 1}))
    yield r("dep-selector-immutable", "PATCH", f"{deploy}/web", {"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}}, MERGE)
    yield r("dep-label-no-generation", "PATCH", f"{deploy}/web?dryRun=All", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    yield r("dep-image", "PATCH", f"{deploy}/web?dryRun=All&fieldManager=n", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}}, STRATEGIC)
    yield r("dep-strategic-add", "PATCH", f"{deploy}/web?dryRun=All&fieldManager=n", {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s:1"}], "volumes": [{"name": "v", "emptyDir": {}}]}}}}, STRATEGIC)
    yield r("dep-strategic-delete", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"template": {"spec": {"containers": [{"name": "c", "$patch": "delete"}, {"name": "d", "image": "d:1"}]}}}}, STRATEGIC)
    yield r("dep-strategic-replace", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"template": {"spec": {"containers": [{"$patch": "replace"}, {"name": "d", "image": "d:1"}]}}}}, STRATEGIC)
    yield r("dep-strategic-no-key", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"template": {"spec": {"containers": [{"image": "d:1"}]}}}}, STRATEGIC)
    yield r("dep-strategic-unknown-directive", "PATCH", f"{deploy}/web?dryRun=All", {"metadata": {"$patch": "nonsense"}}, STRATEGIC)
    yield r("dep-strategic-unknown-directive-root", "PATCH", f"{deploy}/web?dryRun=All", {"$patch": "nonsense"}, STRATEGIC)
    in_container = lambda **more: {"spec": {"template": {"spec": {"containers": [{"name": "c", **more}]}}}}
    for name, directive in (("word", "nonsense"), ("number", 5), ("null", None), ("object", {"a": "b"})):
        yield r(f"dep-strategic-directive-{name}-item", "PATCH", f"{deploy}/web?dryRun=All", in_container(**{"$patch": directive}), STRATEGIC)
        yield r(f"dep-strategic-directive-{name}-map", "PATCH", f"{deploy}/web?dryRun=All", in_container(resources={"$patch": directive}), STRATEGIC)
        yield r(f"dep-strategic-directive-{name}-new-map", "PATCH", f"{deploy}/web?dryRun=All", in_container(securityContext={"$patch": directive, "runAsUser": 7}), STRATEGIC)
        yield r(f"dep-strategic-directive-{name}-env", "PATCH", f"{deploy}/web?dryRun=All", in_container(env=[{"name": "A", "$patch": directive}]), STRATEGIC)
        yield r(f"dep-strategic-directive-{name}-env-no-name", "PATCH", f"{deploy}/web?dryRun=All", in_container(env=[{"$patch": directive}]), STRATEGIC)
        yield r(f"dep-strategic-directive-{name}-labels", "PATCH", f"{deploy}/web?dryRun=All", {"metadata": {"labels": {"$patch": directive}}}, STRATEGIC)
    yield r("dep-strategic-replace-no-items", "PATCH", f"{deploy}/web?dryRun=All", in_container(env=[{"$patch": "replace"}]), STRATEGIC)
    yield r("dep-strategic-replace-in-item", "PATCH", f"{deploy}/web?dryRun=All", in_container(image="d:2", **{"$patch": "replace"}), STRATEGIC)
    yield r("dep-strategic-merge-item", "PATCH", f"{deploy}/web?dryRun=All", in_container(image="d:2", **{"$patch": "merge"}), STRATEGIC)
    yield r("dep-strategic-delete-map", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"template": {"spec": {"securityContext": {"$patch": "delete"}}}}}, STRATEGIC)
    yield r("dep-strategic-delete-absent", "PATCH", f"{deploy}/web?dryRun=All", in_container(securityContext={"$patch": "delete"}, env=[{"name": "A", "$patch": "delete"}]), STRATEGIC)
    yield r("dep-strategic-root-replace", "PATCH", f"{deploy}/web?dryRun=All", {"$patch": "replace", "spec": {}}, STRATEGIC)
    yield r("dep-strategic-recreate", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}, STRATEGIC)
    yield r("dep-account-name", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"template": {"spec": {"serviceAccountName": "other"}}}}, STRATEGIC)
    yield r("dep-pause", "PATCH", f"{deploy}/web?dryRun=All", {"spec": {"paused": True}}, MERGE)
    yield r("dep-scale-get", "GET", f"{deploy}/web/scale")
    yield r("dep-scale-patch", "PATCH", f"{deploy}/web/scale?dryRun=All", {"spec": {"replicas": 3}}, MERGE)
    yield r("dep-scale-negative", "PATCH", f"{deploy}/web/scale", {"spec": {"replicas": -3}}, MERGE)
    ssa = lambda name, manager, body, more="": r(name, "PATCH", f"{deploy}/ssa?fieldManager={manager}{more}", body, APPLY)
    applied = workload("Deployment", "ssa", pod={"containers": [container(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], ports=[{"containerPort": 80}])]})
    yield ssa("dep-apply", "one", applied)
    other = json.loads(json.dumps(applied))
    other["spec"]["template"]["spec"]["containers"][0].update(image="app:2")
    yield ssa("dep-apply-conflict", "two", other)
    env = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa"}, "spec": {"template": {"metadata": {"annotations": {"note": "x"}}, "spec": {"containers": [{"name": "c", "env": [{"name": "C", "value": "3"}]}]}}}}
    yield ssa("dep-apply-env", "two", env, "&dryRun=All")
    yield ssa("dep-apply-annotation", "two", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa"}, "spec": {"template": {"metadata": {"annotations": {"note": "x"}}}}}, "&dryRun=All")
    less = json.loads(json.dumps(applied))
    less["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    yield ssa("dep-apply-less-env", "one", less, "&dryRun=All")
    twice = json.loads(json.dumps(applied))
    twice["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "A", "value": "x"})
    yield ssa("apply-duplicate-env", "one", twice)
    nested = json.loads(json.dumps(applied))
    nested["spec"]["template"]["spec"]["nonsense"] = True
    yield ssa("apply-unknown-field-nested", "one", nested)
    yield ssa("dep-apply-no-create", "one", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa"}}, "&dryRun=All")
    # --- other workloads
    yield r("sts-create", "POST", f"{APPS}/statefulsets?dryRun=All", workload("StatefulSet", "db", {"serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}))
    yield r("sts-make", "POST", f"{APPS}/statefulsets", workload("StatefulSet", "db", {"serviceName": "db"}))
    yield r("sts-forbidden", "PATCH", f"{APPS}/statefulsets/db", {"spec": {"serviceName": "other"}}, MERGE)
    yield r("ds-create", "POST", f"{APPS}/daemonsets?dryRun=All", workload("DaemonSet", "agent"))
    yield r("ds-on-delete", "POST", f"{APPS}/daemonsets?dryRun=All", workload("DaemonSet", "agent", {"updateStrategy": {"type": "OnDelete"}}))
    yield r("rs-create", "POST", f"{APPS}/replicasets?dryRun=All", workload("ReplicaSet", "rs"))
    yield r("job-create", "POST", f"/apis/batch/v1/namespaces/{NS}/jobs?dryRun=All", {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container()]}}}})
    yield r("job-restart-policy", "POST", f"/apis/batch/v1/namespaces/{NS}/jobs?dryRun=All", {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": [container()]}}}})
    cron = f"/apis/batch/v1beta1/namespaces/{NS}/cronjobs"
    cron_body = {"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "n"}, "spec": {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container()]}}}}}}
    yield r("cron-create", "POST", cron, cron_body)
    yield r("cron-get", "GET", f"{cron}/n")
    yield r("cron-apply", "PATCH", f"{cron}/n?fieldManager=x", {"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "n"}, "spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}}, APPLY)
    yield r("cron-no-schedule", "POST", cron, {"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "m"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container()]}}}}}})
    yield r("cron-v1-absent", "GET", f"/apis/batch/v1/namespaces/{NS}/cronjobs")
    # --- pods
    pods = f"{CORE}/pods"
    pod = lambda name="p", **spec: {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {"automountServiceAccountToken": False, "containers": [container()], **spec}}
    yield r("pod-create", "POST", pods, pod())
    yield r("pod-get", "GET", f"{pods}/p")
    yield r("pod-no-account", "POST", pods, pod("q", serviceAccountName="missing"))
    yield r("pod-missing-volume", "POST", pods, pod("q", containers=[container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]))
    yield r("pod-burstable", "POST", f"{pods}?dryRun=All", pod("q", containers=[container(resources={"requests": {"cpu": "1"}})]))
    yield r("pod-guaranteed", "POST", f"{pods}?dryRun=All", pod("q", containers=[container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})]))
    yield r("pod-host-network", "POST", f"{pods}?dryRun=All", pod("q", hostNetwork=True, containers=[container(ports=[{"containerPort": 80}])]))
    yield r("pod-spec-forbidden", "PATCH", f"{pods}/p", {"spec": {"serviceAccountName": "other"}}, MERGE)
    yield r("pod-image", "PATCH", f"{pods}/p", {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}, STRATEGIC)
    yield r("pod-status", "PATCH", f"{pods}/p/status?fieldManager=kubelet", {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}, STRATEGIC)
    yield r("pod-status-through-main", "PATCH", f"{pods}/p", {"status": {"phase": "Failed"}}, MERGE)
    yield r("pod-list-phase", "GET", f"{pods}?fieldSelector=status.phase%3DRunning")
    yield r("pod-list-account", "GET", f"{pods}?fieldSelector=spec.serviceAccountName%3Ddefault")
    yield r("pod-list-bad-field", "GET", f"{pods}?fieldSelector=spec.color%3Dred")
    yield r("pod-evict", "POST", f"{pods}/p/eviction?dryRun=All", {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p", "namespace": NS}})
    yield r("pod-delete", "DELETE", f"{pods}/p?gracePeriodSeconds=0")
    yield r("pod-gone", "GET", f"{pods}/p")
    # --- accounts and tokens
    yield r("sa-create", "POST", accounts, {"metadata": {"name": "sa", "annotations": {"azure.workload.identity/client-id": "x"}}})
    yield r("sa-apply", "PATCH", f"{accounts}/sa?fieldManager=w", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "annotations": {"azure.workload.identity/tenant-id": "t"}}}, APPLY)
    yield r("sa-apply-conflict", "PATCH", f"{accounts}/sa?fieldManager=w", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "annotations": {"azure.workload.identity/client-id": "y"}}}, APPLY)
    token = lambda **spec: {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    yield r("token", "POST", f"{accounts}/sa/token", token(audiences=["api://AzureADTokenExchange"], expirationSeconds=600))
    yield r("token-short", "POST", f"{accounts}/sa/token", token(expirationSeconds=599))
    yield r("token-long", "POST", f"{accounts}/sa/token", token(expirationSeconds=2**32 + 1))
    yield r("token-absent", "POST", f"{accounts}/none/token", token(audiences=["x"]))
    yield r("token-pod-absent", "POST", f"{accounts}/sa/token", token(audiences=["x"], boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "none"}))
    yield r("token-get", "GET", f"{accounts}/sa/token")
    # --- secrets, services, rbac
    yield r("secret-string-data", "POST", f"{CORE}/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    yield r("secret-type-immutable", "PATCH", f"{CORE}/secrets/s", {"type": "other"}, MERGE)
    yield r("service-create", "POST", f"{CORE}/services?dryRun=All", {"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}, "clusterIP": "None"}})
    yield r("service-no-ports", "POST", f"{CORE}/services", {"metadata": {"name": "svc"}, "spec": {"selector": {"a": "b"}}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NS}"
    yield r("role-create", "POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
    yield r("binding-create", "POST", f"{rbac}/rolebindings", {"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "sa", "namespace": NS}]})
    yield r("binding-role-immutable", "PATCH", f"{rbac}/rolebindings/b", {"roleRef": {"name": "other"}}, MERGE)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NS}/leases"
    yield r("lease-create", "POST", lease, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": "2026-01-01T00:00:00.000000Z"}})
    yield r("lease-take", "PATCH", f"{lease}/l?fieldManager=x", {"spec": {"holderIdentity": "you"}}, MERGE)
    yield r("webhook-create", "POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?dryRun=All", {"metadata": {"name": "w"}, "webhooks": [{"name": "a.b.c", "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}]})
    # --- lists
    for n in range(3):
        yield r(f"list-make-{n}", "POST", maps, config_map(f"page{n}", labels={"set": "page", "n": str(n)}))
    yield r("list-selector", "GET", f"{maps}?labelSelector=set%3Dpage")
    yield r("list-selector-in", "GET", f"{maps}?labelSelector=n+in+(0,2),set")
    yield r("list-selector-not", "GET", f"{maps}?labelSelector=n!%3D0,set%3Dpage")
    yield r("list-selector-bad", "GET", f"{maps}?labelSelector=a+b+c")
    yield r("list-name", "GET", f"{maps}?fieldSelector=metadata.name%3Dpage1")
    yield r("list-limit", "GET", f"{maps}?labelSelector=set%3Dpage&limit=2")
    yield r("list-continue", "GET", f"{maps}?labelSelector=set%3Dpage&limit=2&continue=@continue")
    yield r("list-bad-continue", "GET", f"{maps}?continue=nonsense")
    yield r("list-match-without-version", "GET", f"{maps}?resourceVersionMatch=Exact")
    yield r("list-empty", "GET", f"{CORE}/endpoints?labelSelector=none")
    yield r("list-deployments", "GET", f"{deploy}?labelSelector=none")
    # --- custom resources
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "rollouts.example.io"},
           "spec": {"group": "example.io", "scope": "Namespaced", "names": {"kind": "Rollout", "plural": "rollouts"},
                    "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                  "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "mode": {"type": "string", "default": "x"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}]}}
    yield r("crd-create", "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", crd)
    yield r("crd-make", "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    custom = f"/apis/example.io/v1/namespaces/{NS}/rollouts"
    yield r("wait-crd", "WAIT", custom)
    ro = {"apiVersion": "example.io/v1", "kind": "Rollout", "metadata": {"name": "ro"}, "spec": {"replicas": 1, "gone": True, "free": {"kept": [1]}}, "status": {"x": 1}}
    yield r("cr-create", "POST", custom, ro)
    yield r("cr-get", "GET", f"{custom}/ro")
    yield r("cr-merge", "PATCH", f"{custom}/ro", {"spec": {"replicas": 2}, "status": {"y": 1}}, MERGE)
    yield r("cr-status", "PATCH", f"{custom}/ro/status", {"spec": {"replicas": 9}, "status": {"y": 1}}, MERGE)
    yield r("cr-put-no-version", "PUT", f"{custom}/ro", ro)
    yield r("cr-strategic", "PATCH", f"{custom}/ro", {"spec": {"replicas": 2}}, STRATEGIC)
    yield r("cr-apply", "PATCH", f"{custom}/ro?fieldManager=a", {"apiVersion": "example.io/v1", "kind": "Rollout", "metadata": {"name": "ro"}, "spec": {"free": {"more": 1}}}, APPLY)
    yield r("cr-apply-conflict", "PATCH", f"{custom}/ro?fieldManager=a", {"apiVersion": "example.io/v1", "kind": "Rollout", "metadata": {"name": "ro"}, "spec": {"replicas": 7}}, APPLY)
    yield r("cr-list", "GET", custom)
    yield r("cr-delete", "DELETE", f"{custom}/ro")
    # --- deletion
    yield r("delete-precondition-uid", "DELETE", f"{maps}/cm", {"preconditions": {"uid": "x"}})
    yield r("delete-dry-run", "DELETE", f"{maps}/cm?dryRun=All")
    yield r("delete", "DELETE", f"{maps}/cm")
    yield r("delete-absent", "DELETE", f"{maps}/cm")
    yield r("finalizer-make", "POST", maps, config_map("fin", finalizers=["example.com/hold"]))
    yield r("finalizer-delete", "DELETE", f"{maps}/fin")
    yield r("finalizer-again", "DELETE", f"{maps}/fin")
    yield r("finalizer-free", "PATCH", f"{maps}/fin", {"metadata": {"finalizers": None}}, MERGE)
    yield r("finalizer-gone", "GET", f"{maps}/fin")
    yield r("delete-collection", "DELETE", f"{maps}?labelSelector=set%3Dpage")
    yield r("delete-deployment", "DELETE", f"{deploy}/web?dryRun=All", {"propagationPolicy": "Foreground"})
    # --- paths that do not exist
    yield r("no-group", "GET", "/apis/none.example.com/v1")
    yield r("no-resource", "GET", "/api/v1/nonsenses")
    yield r("no-subresource", "GET", f"{maps}/page0/nonsense")
    yield r("no-method", "POST", f"{CORE}/configmaps/x/y")
    yield r("discovery-apps", "GET", "/apis/apps")
    yield r("can-i", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": NS}}})


class Server:
    def __init__(self, url, token):
        self.url, self.token, self.kept = url, token, {}
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def send(self, method, path, media, body):
        for name, value in self.kept.items():
            path = path.replace("@" + name, urllib.parse.quote(value))
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Authorization", "Bearer " + self.token)
        request.add_header("User-Agent", "differ/1.0")
        request.add_header("Accept", "application/json")
        if data is not None:
            request.add_header("Content-Type", media)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=20) as answer:
                code, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, text = error.code, error.read()
        try:
            value = json.loads(text)
        except ValueError:
            value = text.decode(errors="replace").strip()
        if isinstance(value, dict) and value.get("metadata", {}).get("continue"):
            self.kept["continue"] = value["metadata"]["continue"]
        return code, value


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def whole(entries):
    """Managed fields with one entry for each manager: since 1.22 subresources have their own."""
    def merged(a, b):
        return {k: merged(a.get(k, {}), b.get(k, {})) for k in [*a, *(k for k in b if k not in a)]}

    found = {}
    for entry in entries:
        entry = {k: v for k, v in entry.items() if k != "subresource"}
        if "fieldsV1" not in entry:
            return entries
        same = found.setdefault((entry.get("manager"), entry.get("operation"), entry.get("apiVersion")), entry)
        same["fieldsV1"] = merged(same["fieldsV1"], entry["fieldsV1"])
    return list(found.values())


def normal(value, key=""):
    """Replaces what cannot be equal."""
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items()}
    if isinstance(value, list):
        if key == "managedFields":
            value = sorted(whole(value), key=lambda m: (m.get("operation", ""), m.get("manager", "")))
        return [normal(v) for v in value]
    if isinstance(value, str):
        if key in ("resourceVersion", "continue", "token"):
            return f"<{key}>"
        if value != "00000000-0000-0000-0000-000000000000":
            value = UUID.sub("<uuid>", value)
        value = TIME.sub("<time>", value)
        value = re.sub(r"(ReplicaSet \"[a-z]+-)[a-z0-9]+", r"\1<hash>", value)
        return re.sub(r"(in the precondition \(|version \()[^)]*\)", r"\1<v>)", value)
    return value


def differences(a, b, path="$"):
    if type(a) is not type(b):
        yield path, a, b
    elif isinstance(a, dict):
        for key in sorted(set(a) | set(b)):
            here = f"{path}.{key}"
            if key not in a:
                yield here, "<absent>", b[key]
            elif key not in b:
                yield here, a[key], "<absent>"
            else:
                yield from differences(a[key], b[key], here)
    elif isinstance(a, list):
        if len(a) != len(b):
            yield path, a, b
        else:
            for index, (x, y) in enumerate(zip(a, b)):
                yield from differences(x, y, f"{path}[{index}]")
    elif a != b:
        yield path, a, b


def main():
    real, emulated = Server(*sys.argv[1:3]), Server(*sys.argv[3:5])
    total = bad = allowed = 0
    for name, method, path, media, body in requests():
        if method == "WAIT":
            import time
            for server in (real, emulated):
                for _ in range(100):
                    if server.send("GET", path, media, None)[0] == 200:
                        break
                    time.sleep(0.1)
            continue
        total += 1
        (code_a, a), (code_b, b) = (s.send(method, path, media, body) for s in (real, emulated))
        if code_a != code_b:
            # Bodies of different statuses have nothing in common; the messages say what happened.
            brief = lambda v: v.get("message", "(an object)") if isinstance(v, dict) else v
            found = [("$status", f"{code_a} {brief(a)}", f"{code_b} {brief(b)}")]
        else:
            found = list(differences(normal(a), normal(b)))
        for where, x, y in found:
            if any(re.search(pattern, f"{name} {where}") for pattern, _ in ALLOWED):
                allowed += 1
                continue
            bad += 1
            print(f"{name}: {method} {path}\n  {where}\n    real     {json.dumps(x)[:700]}\n    emulated {json.dumps(y)[:700]}")
    print(f"{total} requests, {bad} differences, {allowed} allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
