from django.apps import AppConfig


class AnumateConfig(AppConfig):
    name = "anumate"
    verbose_name = "Anumate"

    def ready(self) -> None:
        from anumate import celery  # noqa: F401  (the Celery app must exist before any task is sent)
