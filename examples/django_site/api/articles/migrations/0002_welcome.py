from django.db import migrations


def welcome(apps, schema_editor):
    """Insert a first article, because users can't comment on an empty site."""
    apps.get_model("articles", "Article").objects.get_or_create(
        slug="welcome",
        defaults={
            "title": "Welcome",
            "summary": "The first article of a new site.",
            "body": "It came with the tables. Write others under /admin/.",
        },
    )


class Migration(migrations.Migration):
    dependencies = [("articles", "0001_initial")]
    operations = [migrations.RunPython(welcome, migrations.RunPython.noop)]
