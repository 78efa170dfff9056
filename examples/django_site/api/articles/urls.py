from django.urls import path

from . import views

app_name = "articles"
urlpatterns = [
    path("", views.ArticleList.as_view(), name="list"),
    path("<slug:slug>/", views.ArticlePage.as_view(), name="article"),
]
