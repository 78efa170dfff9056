"""Pages that Django renders."""

from django.core.cache import cache
from django.db.models import Count
from django.shortcuts import get_object_or_404
from django.views.generic import CreateView, ListView

from .models import Article, Comment

MOST_DISCUSSED = "most-discussed"
MAX_COMMENTS = 50


def most_discussed() -> list[Article]:
    """Return the three articles with the most comments. Cache them for 30 s, because counting comments is expensive."""

    def count() -> list[Article]:
        return list(Article.objects.annotate(count=Count("comments")).filter(count__gt=0).order_by("-count")[:3])

    return cache.get_or_set(MOST_DISCUSSED, count, timeout=30)


class ArticleList(ListView):
    model = Article
    template_name = "articles/list.html"
    paginate_by = 20

    def get_context_data(self, **kwargs):
        return super().get_context_data(most_discussed=most_discussed(), **kwargs)


class ArticlePage(CreateView):
    """Render an article, its comments, and the form for a new comment."""

    model = Comment
    fields = ["author", "text"]
    template_name = "articles/article.html"

    def setup(self, request, *args, **kwargs):
        super().setup(request, *args, **kwargs)
        self.article = get_object_or_404(Article, slug=kwargs["slug"])

    def get_initial(self):
        return {"author": self.request.user.get_username()}

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            article=self.article, comments=self.article.comments.all()[:MAX_COMMENTS], **kwargs
        )

    def form_valid(self, form):
        form.instance.article = self.article
        return super().form_valid(form)

    def get_success_url(self) -> str:
        return self.article.get_absolute_url()
