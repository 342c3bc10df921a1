from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        from gateway.control.publish import on_change
        from registry.signals import configuration_changed

        configuration_changed.connect(on_change, dispatch_uid="gateway.publish")
