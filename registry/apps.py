from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "registry"
    verbose_name = "Registry"

    def ready(self) -> None:
        from registry.services.sections import on_change
        from registry.signals import configuration_changed

        configuration_changed.connect(on_change, dispatch_uid="registry.sections")
