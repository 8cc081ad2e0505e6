"""deploy/kubernetes: Kubernetes can read the manifests, their pods keep to the Pod Security Standard "restricted", and
they agree with the containers of docker-compose.yml, whose commands `tests/stack/test_containers.py` runs.
"""

import pytest
import yaml

from everstream import __version__
from everstream.settings import PROJECT_ROOT, Settings, load_settings, variable_of
from harness import compose_file
from harness.gunicorn_conf import graceful_timeout_s

FOLDER = PROJECT_ROOT / "deploy" / "kubernetes"
KUSTOMIZATION, EXAMPLE = FOLDER / "kustomization.yaml", FOLDER / "secret.example.yaml"
FILES = {path: list(yaml.safe_load_all(path.read_text())) for path in FOLDER.glob("*.yaml")}
RESOURCES = [resource for path, found in FILES.items() if path != KUSTOMIZATION for resource in found]
COMPOSE = compose_file.services()
PARTS = ("valkey", "engine", "web")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def named(kind, name):
    (found,) = [each for each in RESOURCES if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(part):
    return named("StatefulSet" if part == "valkey" else "Deployment", part)["spec"]["template"]


def container(part):
    (only,) = pod(part)["spec"]["containers"]
    return only


def environ_of(part):
    given = [named("ConfigMap", each["configMapRef"]["name"])["data"] for each in container(part).get("envFrom", ())]
    own = {each["name"]: each.get("value", "from-a-field") for each in container(part).get("env", ())}
    return {name: value for data in given for name, value in data.items()} | own


def user_of(part):
    security = pod(part)["spec"]["securityContext"]
    return f"{security['runAsUser']}:{security['runAsGroup']}"


@pytest.mark.parametrize("path", [path for path in FILES if path != KUSTOMIZATION], ids=lambda path: path.name)
def test_schema(path):
    validator = pytest.importorskip("kubernetes_validate")
    for resource in FILES[path]:
        validator.validate(resource, validator.latest_version(), strict=True)


def test_schema_knows_every_field():
    validator = pytest.importorskip("kubernetes_validate")
    misspelt = named("Deployment", "web") | {"spec": named("Deployment", "web")["spec"] | {"replica": 2}}
    with pytest.raises(validator.ValidationError):
        validator.validate(misspelt, validator.latest_version(), strict=True)


def test_kustomization_has_every_file_but_the_example():
    (kustomization,) = FILES[KUSTOMIZATION]
    assert {FOLDER / name for name in kustomization["resources"]} == FILES.keys() - {KUSTOMIZATION, EXAMPLE}
    assert kustomization["namespace"] == named("Namespace", "everstream")["metadata"]["name"]
    images = {f"{image['name']}:{image['newTag']}" for image in kustomization["images"]}
    assert images == {container(part)["image"] for part in ("web", "engine")}
    assert images == {f"everstream-{part}:{__version__}" for part in ("web", "engine")}


@pytest.mark.parametrize("part", PARTS)
def test_pods_keep_to_the_restricted_standard(part):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root."""
    spec, own = pod(part)["spec"], container(part)
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert not any("hostPort" in port for port in own.get("ports", ()))
    assert spec["automountServiceAccountToken"] is False
    enforced = named("Namespace", "everstream")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


@pytest.mark.parametrize("part", PARTS)
def test_pods_have_limits_and_probes(part):
    resources = container(part)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys() and "memory" in resources["limits"]
    assert "readinessProbe" in container(part)
    for volume in pod(part)["spec"]["volumes"]:
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume
    claimed = [claim["metadata"]["name"] for claim in named("StatefulSet", "valkey")["spec"]["volumeClaimTemplates"]]
    volumes = {volume["name"] for volume in pod(part)["spec"]["volumes"]} | set(claimed)
    assert {mount["name"] for mount in container(part)["volumeMounts"]} <= volumes


@pytest.mark.parametrize("part", ["engine", "web"])
def test_every_setting_is_known(part):
    environ, ours = environ_of(part), {variable_of(field) for field in Settings.__struct_fields__}
    assert environ.keys() <= ours | compose_file.FOREIGN_VARIABLES
    assert load_settings({name: value for name, value in environ.items() if not name.endswith("_FILE")}).valkey_url
    # Otherwise Kubernetes adds variables for each service of the namespace. One that is named `everstream` would make
    # EVERSTREAM_PORT, which is no setting.
    assert pod(part)["spec"]["enableServiceLinks"] is False


def test_secrets_come_from_files_alone():
    for part in PARTS:
        (mount,) = [mount for mount in container(part)["volumeMounts"] if mount["name"] == "secrets"]
        assert mount == {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}
        (secret,) = [volume["secret"] for volume in pod(part)["spec"]["volumes"] if volume["name"] == "secrets"]
        keys = {
            item["key"]
            for item in secret.get("items", [{"key": key} for key in named("Secret", "everstream")["stringData"]])
        }
        assert keys == set(COMPOSE[part]["secrets"])
        assert secret["secretName"] == named("Secret", "everstream")["metadata"]["name"]
        # The group of the pod's volumes, which its process is in.
        assert secret["defaultMode"] == 0o440 and pod(part)["spec"]["securityContext"]["fsGroup"]
        assert "secretKeyRef" not in str(container(part))
    assert set(named("Secret", "everstream")["stringData"].values()) == {""}


def test_containers_are_those_of_the_compose_file():
    users = {part: COMPOSE[part].get("user") or compose_file.dockerfile_commands()[part][1] for part in PARTS}
    assert {part: user_of(part) for part in PARTS} == users
    assert container("valkey")["image"] == COMPOSE["valkey"]["image"]
    script = COMPOSE["valkey"]["command"][2].replace("/valkey.conf", "/etc/valkey/valkey.conf")
    assert container("valkey")["args"] == ["sh", "-euc", script]
    check = COMPOSE["valkey"]["healthcheck"]["test"][1]
    assert container("valkey")["readinessProbe"]["exec"]["command"] == ["sh", "-c", check]
    assert container("engine")["readinessProbe"]["exec"]["command"] == COMPOSE["engine"]["healthcheck"]["test"][1:]
    for part in ("engine", "web"):
        assert not container(part).keys() & {"command", "args"}
        for name in compose_file.FOREIGN_VARIABLES | {"VALKEY_URL", "EVERSTREAM_CACHE_DIR", "EVERSTREAM_HOST"}:
            assert environ_of(part).get(name, "") == str(COMPOSE[part]["environment"].get(name, "")), name
    for part in ("valkey", "web"):
        memory = container(part)["resources"]["limits"]["memory"]
        assert memory.removesuffix("i").lower() == COMPOSE[part]["mem_limit"]
    for part in PARTS:
        written = {volume.split(":")[1] for volume in COMPOSE[part].get("volumes", ())}
        written |= {mount.partition(":")[0] for mount in COMPOSE[part].get("tmpfs", ())}
        mounts = {mount["mountPath"] for mount in container(part)["volumeMounts"] if not mount.get("readOnly")}
        assert mounts - {"/dev/shm"} == written


def test_valkey_has_the_shipped_configuration():
    shipped = (PROJECT_ROOT / "deploy" / "valkey" / "valkey.conf").read_text()
    directives = [line for line in shipped.splitlines() if line and not line.startswith("#")]
    assert named("ConfigMap", "valkey")["data"]["valkey.conf"].splitlines() == directives


def test_ports_agree():
    web = {port["name"]: port["containerPort"] for port in container("web")["ports"]}
    assert web == {"http": Settings().port, "health": int(environ_of("web")["EVERSTREAM_HEALTH_PORT"])}
    assert named("Service", "web")["spec"]["ports"][0]["targetPort"] == "http"
    probes = [container("web")[probe]["httpGet"] for probe in PROBES if probe in container("web")]
    # /readyz is 503 while no engine is ready; a pod that is not ready gets no requests.
    assert probes and all(probe == {"path": "/healthz", "port": "health"} for probe in probes)
    (valkey,) = container("valkey")["ports"]
    assert environ_of("web")["VALKEY_URL"] == f"redis://valkey:{valkey['containerPort']}/0"
    assert named("Service", "valkey")["spec"]["ports"][0]["port"] == valkey["containerPort"]


def test_selectors_find_their_pods():
    for resource in RESOURCES:
        selector = resource.get("spec", {}).get("selector")
        part = resource["metadata"]["name"]
        if selector:
            labels = pod(part)["metadata"]["labels"]
            assert (selector.get("matchLabels") or selector).items() <= labels.items(), part


def test_web_pods_leave_without_a_gap():
    assert named("Deployment", "web")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert named("PodDisruptionBudget", "web")["spec"]["minAvailable"] < named("Deployment", "web")["spec"]["replicas"]
    slept = int(container("web")["lifecycle"]["preStop"]["exec"]["command"][1])
    graceful_s = graceful_timeout_s({"EVERSTREAM_DRAIN_S": environ_of("web")["EVERSTREAM_DRAIN_S"]})
    assert pod("web")["spec"]["terminationGracePeriodSeconds"] > slept + graceful_s
    # They would share a GPU and a volume with the next one.
    assert named("Deployment", "engine")["spec"]["strategy"] == {"type": "Recreate"}
    assert named("StatefulSet", "valkey")["spec"]["replicas"] == 1


def selects(selector, labels):
    expressions = selector.get("matchExpressions", ())
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"] for each in expressions
    )


def peer_allows(peer, labels, namespace):
    """Whether a rule's peer is a pod with these labels in this namespace; None is an address outside of the cluster."""
    if namespace is None:
        return "ipBlock" in peer
    if "namespaceSelector" in peer:
        return selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    return "podSelector" in peer and namespace == "everstream" and selects(peer["podSelector"], labels)


def is_allowed(direction, part, port, labels, namespace="everstream"):
    """By the policies, of which one has to allow it."""
    own = pod(part)["metadata"]["labels"]
    policies = [each["spec"] for each in RESOURCES if each["kind"] == "NetworkPolicy"]
    policies = [each for each in policies if selects(each["podSelector"], own)]
    assert any(direction in each["policyTypes"] for each in policies), "what no policy selects may do anything"
    peers = {"Ingress": "from", "Egress": "to"}[direction]
    rules = [rule for each in policies for rule in each.get(direction.lower(), ())]
    return any(
        any(each["port"] == port for each in rule["ports"])
        and (peers not in rule or any(peer_allows(peer, labels, namespace) for peer in rule[peers]))
        for rule in rules
    )


def test_only_web_and_engine_reach_valkey():
    for part in PARTS:
        labels = pod(part)["metadata"]["labels"]
        expected = part != "valkey"
        assert is_allowed("Ingress", "valkey", 6379, labels) is expected
        assert part == "valkey" or is_allowed("Egress", part, 6379, pod("valkey")["metadata"]["labels"])
        assert not is_allowed("Ingress", "valkey", 6379, labels, "default")
        assert not is_allowed("Ingress", "valkey", 6379, labels, None)
    assert not is_allowed("Ingress", "valkey", 6379, {"app.kubernetes.io/component": "another"})


def test_only_web_is_reached_from_outside():
    for namespace in ("default", None):
        assert is_allowed("Ingress", "web", 8000, {}, namespace)
        assert not is_allowed("Ingress", "web", 8001, {}, namespace)
        assert not any(is_allowed("Ingress", "engine", port, {}, namespace) for port in (80, 8000, 8001, 6379))
    assert is_allowed("Ingress", "web", 8001, {}, "monitoring")


def test_only_the_engine_reaches_outside():
    assert [part for part in PARTS if is_allowed("Egress", part, 443, {}, None)] == ["engine"]
    assert all(is_allowed("Egress", part, 53, {}, "kube-system") for part in PARTS)
