"""Paths of the HTTP interface that the landing page requests."""

from config.release import RELEASE, SLOT
from django.db.models import Count
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from .models import Article


@require_safe
def newest(request: HttpRequest) -> JsonResponse:
    # Sort here, because Django ignores `Article.Meta.ordering` in a query that counts.
    articles = Article.objects.annotate(count=Count("comments")).order_by("-published")[:20]
    return JsonResponse({"articles": [_to_json(article) for article in articles]})


def _to_json(article: Article) -> dict[str, object]:
    return {
        "title": article.title,
        "summary": article.summary,
        "url": article.get_absolute_url(),
        "published": article.published,
        "comments": article.count,
    }


@require_safe
def release(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"release": RELEASE, "slot": SLOT})
