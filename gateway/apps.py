from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        from gateway.control import why
        from gateway.control.publish import on_change
        from registry.signals import configuration_changed
        from registry.why import provide

        configuration_changed.connect(on_change, dispatch_uid="gateway.publish")
        provide("breaker", why.breaker)
        provide("version", why.versions)
