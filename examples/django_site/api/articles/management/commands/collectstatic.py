"""Run Django's collectstatic, then remove the static files of old releases."""

from config import static
from django.contrib.staticfiles.management.commands import collectstatic


class Command(collectstatic.Command):
    def handle(self, **options):
        said = super().handle(**options)
        for folder in static.clear():
            self.log(f"removed {folder.name}: {static.NEWEST} others are newer, and nothing runs of it")
        return said
