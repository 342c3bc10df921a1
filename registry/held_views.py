"""Who is held because leases lapsed in a crowd, and letting them go."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry.auth import caller_of
from registry.live.instances import Instance
from registry.serializers import Moment, Strict, Text
from registry.services import held


class HeldSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    instance_id = serializers.CharField()
    since = Moment()
    until = Moment()
    sentence = serializers.CharField(help_text="Why it is held.")


class HeldListSerializer(serializers.Serializer[Any]):
    held = HeldSerializer(many=True)


class ReleaseSerializer(Strict):
    service_name = Text(max_length=63, required=False, allow_blank=True, default="", help_text="Empty: every service.")
    reason = Text(max_length=500, required=False, allow_blank=True, default="")


class ReleasedSerializer(serializers.Serializer[Any]):
    released = serializers.IntegerField(help_text="Instances that the next sweep ends, unless they renew before it.")


class Held(APIView):
    """Instances whose leases lapsed together with many others of the tenant. They still get traffic."""

    scopes: ClassVar = {"read": "registry:read"}

    @extend_schema(operation_id="leases_held", responses=HeldListSerializer)  # type: ignore[untyped-decorator]
    def get(self, request: Request) -> Response:
        found = [_shown(instance) for instance in held.held(caller_of(request).tenant)]
        return Response(HeldListSerializer({"held": found}).data)


class HeldRelease(APIView):
    """Let go of what is held: the next sweep ends it."""

    scopes: ClassVar = {"write": "registry:write"}

    @extend_schema(operation_id="leases_held_release", request=ReleaseSerializer, responses=ReleasedSerializer)  # type: ignore[untyped-decorator]
    def post(self, request: Request) -> Response:
        caller = caller_of(request)
        wanted = ReleaseSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = wanted.validated_data
        released = held.release(caller.actor, caller.tenant, fields["service_name"], reason=fields["reason"])
        return Response(ReleasedSerializer({"released": released}).data)


def _shown(instance: Instance) -> dict[str, Any]:
    key, fact = instance.key, instance.facts["held"]
    return {
        "name": key.service,
        "instance_id": key.id,
        "since": fact.since,
        "until": fact.expires_at,
        "sentence": fact.sentence,
    }
