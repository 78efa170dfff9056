import os
import tempfile
from pathlib import Path
from unittest import mock

from config import static
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client, TestCase, override_settings
from django.urls import reverse

from .management.commands import seed
from .models import Article, Comment


class Pages(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.article = Article.objects.create(title="Ways", slug="ways", summary="Of going back.", body="One switch.")

    def test_migration_inserts_a_first_article(self):
        self.assertContains(self.client.get(reverse("articles:list")), "The first article of a new site.")

    def test_new_comment_is_escaped_and_shown_on_the_page(self):
        answer = self.client.post(
            self.article.get_absolute_url(), {"author": "Ada", "text": "<b>Good</b>"}, follow=True
        )
        self.assertRedirects(answer, self.article.get_absolute_url())
        self.assertContains(answer, "&lt;b&gt;Good&lt;/b&gt;")

    def test_comment_without_text_is_refused(self):
        answer = self.client.post(self.article.get_absolute_url(), {"author": "Ada", "text": " "})
        self.assertContains(answer, "This field is required.")
        assert not Comment.objects.exists()

    def test_form_without_csrf_token_is_refused(self):
        strict = Client(enforce_csrf_checks=True)
        answer = strict.post(self.article.get_absolute_url(), {"author": "Eve", "text": "hello"})
        assert answer.status_code == 403

    def test_api_lists_articles_with_the_number_of_comments(self):
        self.article.comments.create(author="Ada", text="Good")
        newest = self.client.get("/api/articles").json()["articles"][0]
        assert (newest["title"], newest["comments"], newest["url"]) == ("Ways", 1, "/articles/ways/")

    def test_article_from_the_admin_is_published(self):
        self.client.force_login(get_user_model().objects.create_superuser("root"))
        form = {
            "title": "New",
            "slug": "new",
            "summary": "s",
            "body": "b",
            "published_0": "2026-01-02",
            "published_1": "10:00",
        }
        self.client.post(reverse("admin:articles_article_add"), form)
        self.assertContains(self.client.get("/articles/new/"), "New")

    def test_second_seed_inserts_nothing(self):
        for _ in range(2):
            call_command("seed", stdout=mock.Mock())
        assert Article.objects.filter(slug="two-slots-one-switch").count() == 1
        assert self.client.login(username=seed.USER, password=seed.USER)


@override_settings(ALLOWED_HOSTS=["www.example.com"])
class Hosts(TestCase):
    def test_any_host_is_allowed_for_probes_but_not_for_pages(self):
        assert self.client.get("/health", headers={"host": "10.1.2.3"}).status_code == 200
        assert self.client.get("/ready", headers={"host": "10.1.2.3"}).json()["database"] == "ok"
        assert self.client.get("/articles/", headers={"host": "10.1.2.3"}).status_code == 400
        assert self.client.get("/articles/", headers={"host": "www.example.com"}).status_code == 200

    def test_ready_answers_503_without_the_cache(self):
        with mock.patch("config.middleware._check_cache", side_effect=ConnectionError):
            answer = self.client.get("/ready")
        assert (answer.status_code, answer.json()["cache"]) == (503, "ConnectionError")

    def test_request_id_of_the_client_is_kept(self):
        assert self.client.get("/health", headers={"x-request-id": "abc"})["X-Request-Id"] == "abc"


class Static(TestCase):
    def test_clear_keeps_the_newest_folders_and_locked_folders(self):
        with tempfile.TemporaryDirectory() as folder:
            for age, release in enumerate("hgfedcba"):
                manifest = Path(folder, release, "staticfiles.json")
                manifest.parent.mkdir()
                manifest.touch()
                os.utime(manifest, (age, age))
            with mock.patch.multiple(static, FOLDERS=Path(folder), RELEASE="g"):
                lock = static.hold()
                assert [path.name for path in static.clear()] == ["f", "h"]
                os.close(lock)
                assert [path.name for path in static.clear()] == ["g"]
            assert sorted(path.name for path in Path(folder).iterdir()) == list("abcde")
