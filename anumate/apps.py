from django.apps import AppConfig


class AnumateConfig(AppConfig):
    name = "anumate"
    verbose_name = "Anumate"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_out

        from anumate import celery  # noqa: F401  (the Celery app must exist before any task is sent)
        from anumate.faces.goodbye import announce_logout

        user_logged_out.connect(announce_logout, dispatch_uid="live page")
