"""Checks each request before its route. Called by `factory`.

In: Flask's request. Out: `g.principal`, or an error. A request for an address that does not exist is left to Flask.
"""

from flask import current_app, g, request

from everstream.errors import Forbidden, Unauthorized
from everstream.settings import Settings
from everstream.web.access import cross_site, hosts
from everstream.web.access.credentials import MISSING, Credentials
from everstream.web.access.limits import ClientLimits
from everstream.web.access.principal import ANYONE, Principal
from everstream.web.access.rules import PUBLIC, Rule, rule_of
from everstream.web.clients import came_to
from everstream.web.resume_point import last_event_id

STATIC = "static"


class Guard:
    def __init__(self, settings: Settings, credentials: Credentials, limits: ClientLimits) -> None:
        self._credentials = credentials
        self._limits = limits
        self._health_port = settings.health_port
        self._host_names = settings.host_names
        self._origins = settings.cors_list
        self._is_local = settings.access == "auto" and not settings.is_exposed

    def check(self) -> None:
        """For `before_request`. Raises EverstreamError, ValkeyError."""
        g.principal = ANYONE
        hosts.check(self._host_names)
        if request.endpoint is None or request.method == "OPTIONS":
            return
        rule = PUBLIC if request.endpoint == STATIC else rule_of(current_app.view_functions[request.endpoint])
        if rule is None:
            raise Forbidden("this route says nothing about who may use it, so nobody may")
        cross_site.check(rule, self._origins)
        # The health listener is not for clients.
        if rule.scope is not None and not came_to(self._health_port):
            g.principal = self._principal(rule)
            if rule.scope == "infer" and last_event_id() is None:
                self._limits.count_request(g.principal)

    def _principal(self, rule: Rule) -> Principal:
        if not self._credentials.are_required:
            if self._is_local:
                hosts.check_local()
            return ANYONE
        try:
            found = self._credentials.principal(rule)
        except Unauthorized as error:
            if error.code != MISSING:
                self._limits.count_refusal()
            raise
        if rule.scope is not None and not found.may(rule.scope):
            raise Forbidden(f"this needs the scope {rule.scope}; yours: {', '.join(sorted(found.scopes)) or 'none'}")
        return found
