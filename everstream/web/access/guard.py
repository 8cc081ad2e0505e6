"""Checks each request before its route. Called by `factory`.

In: Flask's request. Out: `g.principal`, or an error. A request for an address that does not exist is left to Flask.
"""

from flask import current_app, g, request

from everstream.errors import Forbidden
from everstream.log.api_keys import Scope
from everstream.settings import Settings
from everstream.web.access import cross_site, hosts
from everstream.web.access.credentials import Credentials
from everstream.web.access.principal import ANONYMOUS, Principal
from everstream.web.access.rules import Rule, rule_of
from everstream.web.health_listener import is_check


class Guard:
    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._credentials = credentials
        self._host_names = settings.host_names
        self._origins = settings.cors_list
        self._is_local = settings.access == "auto" and not settings.is_exposed

    def check(self) -> None:
        """For `before_request`. Raises EverstreamError, ValkeyError."""
        g.principal = ANONYMOUS
        if is_check():
            # The health listener is not for clients, and serves nothing of theirs.
            return
        hosts.check(self._host_names)
        if request.endpoint is None or request.method == "OPTIONS":
            return
        rule = rule_of(current_app.view_functions[request.endpoint])
        if rule is None:
            raise Forbidden("this route says nothing about who may use it, so nobody may")
        cross_site.check(rule, self._origins)
        if rule.scope is not None:
            g.principal = self._principal(rule.scope, rule)

    def _principal(self, scope: Scope, rule: Rule) -> Principal:
        if not self._credentials.are_required:
            if self._is_local:
                hosts.check_local()
            return ANONYMOUS
        found = self._credentials.authenticate(rule)
        if not found.may(scope):
            raise Forbidden(f"this needs the scope {scope}; yours: {', '.join(sorted(found.scopes)) or 'none'}")
        return found
