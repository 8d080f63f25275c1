"""``embedding-operator run``: from the environment to a running operator."""

import faulthandler
import os

import kopf
from kubernetes import client, config

from embedding_operator import console
from embedding_operator.controller import Controller
from embedding_operator.handlers import registry
from embedding_operator.logs import configure_logs
from embedding_operator.probes import Probes
from embedding_operator.settings import parse_settings
from embedding_service.contract.problems import SettingsError

_CONNECTIONS = 32


def run() -> int:
    """Run until told to stop. Returns the exit code."""
    try:
        settings = parse_settings(os.environ)
        api = _api_client()
    except SettingsError as error:
        for problem in error.problems:
            console.say(f"error: {problem}")
        return 1
    except config.ConfigException as error:
        console.say(f"error: no cluster: {error}; expected a pod's service account, or a kubeconfig")
        return 1
    configure_logs(settings)
    # Says where, if one of the libraries in C takes the process down.
    faulthandler.enable()
    controller = Controller(settings, api)
    kopf.run(
        registry=registry(controller, Probes(controller, settings.http_port)),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=list(settings.namespaces),
    )
    return 0


def _api_client() -> client.ApiClient:
    """A client of the cluster that this pod is in, else of the kubeconfig's current context."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    # Each thread that looks at a pipeline has its connection, and each watch.
    configuration = client.Configuration.get_default_copy()
    configuration.connection_pool_maxsize = _CONNECTIONS
    return client.ApiClient(configuration)
