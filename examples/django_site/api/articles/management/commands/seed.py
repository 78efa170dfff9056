"""Insert articles, comments and a user for development. Existing rows stay unchanged, so the command is safe to run twice."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from articles.models import Article

ARTICLES = {
    "two-slots-one-switch": (
        "Two slots, one switch",
        "How a site gets a new release while people read it.",
        "A release starts in the idle slot and is tested there. Then one switch moves all users at once.",
        ("Ada", "Does the old release stay?"),
    ),
    "a-folder-for-every-release": (
        "A folder for every release",
        "Why collectstatic keeps the files of earlier releases.",
        "A page that was loaded before the switch still requests the style sheet of its own release.",
        ("Grace", "So that is where the old style sheets come from."),
    ),
    "migrations-that-only-add": (
        "Migrations that only add",
        "Both releases read the same tables.",
        "Add a column, fill it, read both; remove the old one in a later release.",
        ("Edsger", "Edit articles/views.py while this runs."),
    ),
}
USER = "admin"  # also the password


class Command(BaseCommand):
    help = __doc__

    def handle(self, **options):
        for slug, (title, summary, body, (author, text)) in ARTICLES.items():
            values = {"title": title, "summary": summary, "body": body}
            article, new = Article.objects.get_or_create(slug=slug, defaults=values)
            if new:
                article.comments.create(author=author, text=text)
        users = get_user_model().objects
        if not users.filter(username=USER).exists():
            users.create_superuser(USER, password=USER)
        self.stdout.write(f"{len(ARTICLES)} articles, user {USER}")
