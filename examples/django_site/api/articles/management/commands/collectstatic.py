"""Run Django's collectstatic, then remove the static files of old releases."""

from config import static
from django.contrib.staticfiles.management.commands import collectstatic


class Command(collectstatic.Command):
    def handle(self, **options):
        result = super().handle(**options)
        for folder in static.clear():
            self.log(f"removed {folder.name}: no process uses it, and {static.NEWEST} folders are newer")
        return result
